"""Raw files of simulated frames: as the LSST camera writes them, or as a camera file describes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import fitsio
import numpy as np
from numpy.typing import NDArray

from kernels.camera.geometry import Amplifier, Detector
from kernels.fits.seal import written

CCD_TYPES: Final = {"ITL": "3800C", "E2V": "CCD250"}


def _primary(detector: Detector, parameters: Mapping[str, Any], common: Mapping[str, Any]) -> dict[str, Any]:
    """Make the primary header with the camera's keywords."""
    raft, slot = detector.name.rsplit("_", 1)
    telescope, controller, _, _ = parameters["obs_id"].split("_")
    maker, kind = detector.type[:3], parameters["observation_type"].upper()
    cards = {
        "DATE": parameters["begin"],
        "DATE-OBS": parameters["begin"],
        "MJD": parameters["mjd"],
        "MJD-OBS": parameters["mjd"],
        "TIMESYS": "TAI",
        "CCD_MANU": maker,
        "CCD_TYPE": CCD_TYPES.get(maker, "unknown"),
        "CCDSLOT": slot,
        "RAFTBAY": raft,
        "TESTTYPE": kind,
        "IMGTYPE": kind,
        "REASON": parameters["reason"],
        "PROGRAM": parameters["program"],
        "SEQNUM": parameters["seq_num"],
        "DETSIZE": f"[1:{detector.size[0]},1:{detector.size[1]}]",
        "FILTER": parameters["physical_filter"],
        "EXPTIME": float(parameters["exposure_time"]),
        "DARKTIME": float(parameters["dark_time"]),
        "FILENAME": f"{parameters['obs_id']}_{raft}_{slot}.fits",
        "BINX": 1,
        "BINY": 1,
        "HEADVER": 2,
        "CCDGAIN": 1.0,
        "CCDNOISE": 10.0,
        "CCDTEMP": -100.0,
        "TELESCOP": "LSST",
        "OBSID": parameters["obs_id"],
        "TELCODE": telescope,
        "CONTRLLR": controller,
        "DAYOBS": str(parameters["day_obs"]),
    }
    cards |= common | parameters.get("header", {})
    return {key: value for key, value in cards.items() if value is not None}


def _section(x: tuple[int, int], y: tuple[int, int]) -> str:
    return f"[{x[0]}:{x[1]},{y[0]}:{y[1]}]"


def _segment(amplifier: Amplifier, channel: int, detector: Detector) -> dict[str, Any]:
    """Make the header of a segment; y of DETSEC runs against the detector's, from the first pixel read to the last."""
    data, target, height = amplifier.data, amplifier.target, detector.size[1]
    x, y = (target.x0 + 1, target.x1), (height - target.y0, height - target.y1 + 1)
    return {
        "HEADVER": 1,
        "CHANNEL": channel,
        "CCDSUM": "1 1",
        "DATASEC": _section((data.x0 + 1, data.x1), (data.y0 + 1, data.y1)),
        "DETSEC": _section(x[::-1] if amplifier.flip_x else x, y[::-1] if amplifier.flip_y else y),
        "DETSIZE": f"[1:{detector.size[0]},1:{height}]",
    }


def lsst(
    detector: Detector, images: list[NDArray[np.int32]], parameters: Mapping[str, Any], common: Mapping[str, Any]
) -> bytes:
    """Make a raw file as the LSST camera: primary header, and a Rice-compressed HDU (tiles of one row) an amplifier."""

    def write(fits: fitsio.FITS) -> None:
        fits.write(None, header=_primary(detector, parameters, common))
        for k, (amplifier, image) in enumerate(zip(detector.amplifiers, images, strict=True)):
            fits.write(
                image,
                extname=amplifier.hdu,
                header=_segment(amplifier, k + 1, detector),
                compress="RICE",
                tile_dims=(1, image.shape[1]),
            )

    return written(write)


def plain(
    detector: Detector, images: list[NDArray[np.int32]], parameters: Mapping[str, Any], common: Mapping[str, Any]
) -> bytes:
    """Make a raw file with the HDUs of the camera file and the header cards of the job alone.

    Images are uint16 where the converter's range allows it, else int32.  The
    primary image is not compressed, the others are by Rice, a tile a row.
    """
    cards = {key: value for key, value in {**common, **parameters.get("header", {})}.items() if value is not None}
    kind = np.uint16 if detector.adc_max <= np.iinfo(np.uint16).max else np.int32
    found = _by_hdu(detector, images)

    def write(fits: fitsio.FITS) -> None:
        first = found.pop(0, None)
        fits.write(None if first is None else first.astype(kind), header=cards)
        order: list[int | str] = [*sorted(key for key in found if isinstance(key, int))]
        for key in order + [key for key in found if isinstance(key, str)]:
            image, name = found[key], key if isinstance(key, str) else None
            fits.write(image.astype(kind), extname=name, compress="RICE", tile_dims=(1, image.shape[1]))

    return written(write)


def _by_hdu(detector: Detector, images: list[NDArray[np.int32]]) -> dict[str | int, NDArray[np.int32]]:
    """Gather the amplifiers' images by HDU; amplifiers that share one keep their own regions."""
    found: dict[str | int, NDArray[np.int32]] = {}
    for amplifier, image in zip(detector.amplifiers, images, strict=True):
        whole = found.setdefault(amplifier.hdu, image.copy())
        for box in (amplifier.data, amplifier.serial_overscan, amplifier.parallel_overscan):
            if box is not None:
                whole[box.slices] = image[box.slices]
    return found


Form = Callable[[Detector, list[NDArray[np.int32]], Mapping[str, Any], Mapping[str, Any]], bytes]
#: Writers of raw files, by a job's ``form``.
FORMS: Final[Mapping[str, Form]] = {"lsst": lsst, "plain": plain}
