"""The bundled data sets."""
