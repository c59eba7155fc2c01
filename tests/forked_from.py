"""Imported last by the process that tests fork from: what each of its children would do again."""

from __future__ import annotations

import os
from unittest import mock

import quick_disk  # noqa: F401 - it changes os.fsync
import quick_loading
from ganlab.plugin.loader import load_plugins

with mock.patch.dict(os.environ):
    os.environ.pop("GANLAB_PLUGINS", None)
    load_plugins()
quick_loading.keep_what_is_imported()
