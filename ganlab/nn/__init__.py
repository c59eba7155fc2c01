"""Building blocks of networks that plugins share, and what the core does to any network: modes, memory format, dropout.

May import: `utils`, `protocols`, `plugin`, `config`.
"""
