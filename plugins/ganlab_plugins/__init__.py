"""The bundled plugins of ganlab. Each uses only the public API, as a third-party plugin does."""
