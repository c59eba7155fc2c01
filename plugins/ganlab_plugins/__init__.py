"""The plugins that come with ganlab. Each uses only what a stranger's plugin can use."""
