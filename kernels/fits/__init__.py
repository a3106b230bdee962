"""FITS files: raws decoded row by row, products written and sealed.

`fitsfile` alone opens files.
"""

__all__ = ["blocks", "fitsfile", "identity", "product", "raw", "rowbytes", "seal", "tables", "tiles"]
