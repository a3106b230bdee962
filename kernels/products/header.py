"""The primary header of a product: its identity, inputs and processing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.camera.geometry import Camera, Detector
from kernels.fits.product import Card
from kernels.isr.cosmic import CosmicConfig
from kernels.jobs.job import Job, Task
from kernels.statistics.clip import IQR_TO_SIGMA
from kernels.statistics.percentiles import percentiles

PERCENTILES = (0, 5, 16, 50, 84, 95, 100)
#: Optional values of a job by exposure, besides the scale.
OPTIONAL = {"OFFSET": ("offsets", "was subtracted before"), "WEIGHT": ("weights", "of the weighted mean")}
UNITS = {"bias": "{unit}", "dark": "{unit}/s", "flat": "1", "sky": "1", "fringe": "1"}


@cache  # the metadata of four distributions are read for it
def _versions() -> tuple[Card, ...]:
    cards: list[Card] = []
    for name in ("drp-campaign", "numpy", "numba", "fitsio"):
        try:
            cards.append((f"VERSION_{name.upper()}", version(name), ""))
        except PackageNotFoundError:  # a checkout that is not installed
            cards.append((f"VERSION_{name.upper()}", "unknown", ""))
    return tuple(cards)


def _end(dates: Sequence[str], seconds: Sequence[float]) -> str:
    """Compute the end of the last exposure, as precisely as the dates."""
    begins = [datetime.fromisoformat(date) for date in dates]
    last = max(begin + timedelta(seconds=float(s)) for begin, s in zip(begins, seconds, strict=True))
    return last.isoformat(timespec="milliseconds" if any("." in date for date in dates) or last.microsecond else "auto")


def corrections(detector: Detector, isr: Mapping[str, Any]) -> list[Card]:
    """Make cards of the signature removal's settings, as far as they apply to this detector."""
    done, amplifiers = dict(isr), detector.amplifiers
    if not any(a.serial_overscan for a in amplifiers):
        done |= {"serial": "none"}
    if not any(a.parallel_overscan for a in amplifiers):
        done |= {"parallel": False}
    if done.get("serial") == "none":
        done.pop("skip_columns", None)
    if not done.get("crosstalk"):
        done.pop("quadratic", None)
    plain = {key: " ".join(value) if isinstance(value, list | tuple) else value for key, value in done.items()}
    return [(f"ISR_{key.upper()}", value, "") for key, value in plain.items()]


def _definition(job: Job, detector: Detector) -> list[Card]:
    config = job.config
    cards: list[Card] = [("STATISTC", config["statistic"], "statistic across exposures")]
    if config["statistic"] == "MEANCLIP":
        cards += [
            ("CLIPSIG", float(config["nsigma"]), "kept if |x - centre| <= CLIPSIG sigma"),
            ("CLIPPASS", int(config["passes"]), "passes; each tests all inputs again"),
            ("CLIPCEN", "median, then mean", "centre of the first and the further passes"),
            ("CLIPDISP", f"{IQR_TO_SIGMA} IQR, then std", "sigma of the first and the further passes"),
            ("CLIPDDOF", 1, "delta degrees of freedom of std"),
        ]
    elif config["statistic"] == "SIGMACLIP":
        cards += [
            ("CLIPSIG", float(config["nsigma"]), "kept if |x - centre| <= CLIPSIG sigma"),
            ("CLIPPASS", "until nothing changes", "each tests what the one before kept"),
            ("CLIPCEN", "median", "of what is kept"),
            ("CLIPDISP", "std", "of what is kept"),
            ("CLIPDDOF", int(config.get("ddof", 1)), "delta degrees of freedom of std"),
        ]
    cards += corrections(detector, config["isr"])
    if config.get("cosmic"):
        cosmic = vars(CosmicConfig(**config["cosmic"]))
        cards += [(f"CR_{key.upper()}", value, "") for key, value in cosmic.items()]
    return cards


def _inputs(task: Task, scales: NDArray[np.float64]) -> list[Card]:
    parameters, cards = task.parameters, []
    for n, exposure in enumerate(parameters["exposures"]):
        cards += [
            (f"CPP_INPUT_{n}", exposure, "exposure"),
            (f"CPP_INPUT_DATE_{n}", parameters["dates"][n], "TAI"),
            (f"CPP_INPUT_EXPT_{n}", float(parameters["exposure_times"][n]), "s"),
            (f"CPP_INPUT_SCALE_{n}", float(np.mean(scales[n])), "pixels were divided by it"),
            *(
                (f"CPP_INPUT_{key}_{n}", float(parameters[name][n]), comment)
                for key, (name, comment) in OPTIONAL.items()
                if name in parameters
            ),
        ]
    return cards


def _amplifiers(detector: Detector, image: NDArray[np.float32], mask: NDArray[np.int32]) -> list[Card]:
    cards: list[Card] = []
    for amplifier in detector.amplifiers:
        values, good = percentiles(image, mask, amplifier.target, PERCENTILES)
        cards += [(f"AMP_{amplifier.name}_P{p}", float(v), "") for p, v in zip(PERCENTILES, values, strict=True)]
        cards += [
            (f"AMP_{amplifier.name}_BAD", amplifier.target.nx * amplifier.target.ny - good, "bad pixels"),
            (f"AMP_{amplifier.name}_GAIN", amplifier.gain, "electron / ADU"),
            (f"AMP_{amplifier.name}_READNOISE", amplifier.read_noise, "electron"),
        ]
    return cards


def product_cards(
    job: Job,
    task: Task,
    camera: Camera,
    detector: Detector,
    image: NDArray[np.float32] | None,
    mask: NDArray[np.int32] | None,
    scales: NDArray[np.float64],
) -> list[Card]:
    """Make the header of a combined calibration.

    Parameters
    ----------
    image : `numpy.ndarray` [y, x], float32
        `None` of a product that has no pixels of the detector.
    mask : `numpy.ndarray` [y, x], int32
    scales : `numpy.ndarray` [exposure, amplifier], float64
        Divisors of the inputs.
    """
    kind, dates = job.config["type"], task.parameters["dates"]
    seconds = 0.0 if kind == "bias" else 1.0
    cards: list[Card] = [
        ("OBSTYPE", kind, "calibration product"),
        ("INSTRUME", camera.name, ""),
        ("DETECTOR", detector.id, ""),
        ("DETNAME", detector.name, ""),
        ("BUNIT", UNITS[kind].format(unit=camera.unit), "unit of IMAGE; VARIANCE is its square"),
        ("CALUNIT", camera.unit, "unit of the frames that went in"),
        ("EXPTIME", seconds, "s"),
        ("DARKTIME", seconds, "s"),
        ("TIMESYS", "TAI", ""),
        ("DATE", datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", ""), "UTC, creation"),
        ("DATE-BEG", min(dates), "begin of the first input"),
        ("DATE-END", _end(dates, task.parameters["exposure_times"]), "end of the last input"),
        ("NINPUTS", len(task.parameters["exposures"]), "exposures"),
        ("RUNID", job.run, ""),
        ("RUNTASK", task.task, ""),
    ]
    cards += _definition(job, detector) + _inputs(task, scales)
    cards += [(key, value, "") for key, value in task.provenance.items()]
    if image is not None and mask is not None:
        cards += _amplifiers(detector, image, mask)
    return [*cards, *_versions()]
