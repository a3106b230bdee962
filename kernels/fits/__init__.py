"""FITS files: raws decoded row by row, products written and sealed.

`fitsfile` alone opens files for cfitsio.
"""

__all__ = ["blocks", "cards", "fitsfile", "identity", "product", "raw", "rowbytes", "seal", "tables", "tiles"]
