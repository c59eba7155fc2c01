"""Sphinx configuration of the docs site. What it says about code is generated from the code, in `from_code.py`.

The site loads nothing from elsewhere: no intersphinx, no web fonts, no third-party scripts.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "plugins")]

import ganlab  # noqa: E402

project = "ganlab"
author = copyright = "The ganlab authors"
version = release = ganlab.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "from_code"]
exclude_patterns = ["_build"]

smartquotes = False  # quotes in the text are TOML's

html_theme = "furo"
html_title = f"ganlab {version}"
html_copy_source = False

myst_enable_extensions = ["attrs_inline", "deflist"]
myst_heading_anchors = 3  # anchors as on GitHub, so that one link works in both places

autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_typehints_format = "short"
default_role = "code"  # docstrings use single backticks for code
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r"(?!ganlab\.).*")]  # names of other packages are on no page
nitpick_ignore = [
    # Types of the fields of Run and of EncodedImage, and of what compare_runs and list_plugins return.
    *(
        ("py:class", name)
        for name in (
            "ganlab.data.condition_sampler.ConditionSampler",
            "ganlab.config.schema.Experiment",
            "ganlab.data.image_file.Samples",
            "ganlab.plugin.component.Component",
            "ganlab.plugin.failures.PluginFailure",
            "ganlab.plugin.loader.Plugins",
            "ganlab.report.compare.ComparisonTable",
            "ganlab.run.checkpoint_networks.CheckpointNetworks",
            "ganlab.evaluation.network_sampler.NetworkSampler",
        )
    ),
    ("py:class", "ganlab.plugin.hookspecs.Part_contra"),  # a type variable
]
