"""A repository with the raws of a whole LSSTCam, to measure planning: records of many names of one file."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from campaign.camera.model import Camera, load
from campaign.camera.observation import Observation
from campaign.frames import ingest
from campaign.home import Home
from campaign.simulation.shots import Exposure
from campaign.simulation.simulate import Nights, Places, exposures

CAMERA, TICKET, FILTER = "LSSTCam", "DM-00000", "r_57"
FILE = b"a raw of which nobody reads more than its size\n"


def variables(places: Places) -> dict[str, str]:
    """The environment that ``bps_isr.yaml`` is resolved in."""
    return {
        "HOME": os.environ.get("HOME", "/"),
        "INSTRUMENT": CAMERA,
        "TICKET": TICKET,
        "TAG": "graph",
        "RERUN": "20241206a",
        "REPO": str(places.repository),
        "RAW_COLLECTION": f"{CAMERA}/raw/all",
        "CALIB_COLLECTIONS": f"{CAMERA}/calib",
        "USER_CALIB_PREFIX": "",
        "SCRATCH": str(places.repository.parent / "scratch"),
        "SELECTION_BIAS": f"instrument='{CAMERA}' and exposure.observation_type='bias'",
    }


def _files(camera: Camera, places: Places, shots: Sequence[Exposure]) -> Iterator[Observation]:
    """One file under the name of every raw, and the values of its header."""
    for shot in shots:
        folder = places.raw / str(shot.day_obs) / shot.obs_id
        folder.mkdir(parents=True)
        first = folder / "raw"
        first.write_bytes(FILE)
        for detector in camera.detector_ids("SCIENCE"):
            path = folder / f"{shot.obs_id}_{camera.by_id[detector].name}.fits"
            os.link(first, path)
            yield Observation(
                path=str(path),
                instrument=camera.name,
                exposure=shot.exposure,
                detector=detector,
                day_obs=shot.day_obs,
                seq_num=shot.seq_num,
                obs_id=shot.obs_id,
                observation_type=shot.observation_type,
                observation_reason=shot.reason,
                science_program=shot.program,
                physical_filter=FILTER,
                exposure_time=shot.exposure_time,
                dark_time=shot.dark_time,
                begin=shot.begin,
            )


def make(folder: Path, many: int) -> float:
    """Make a repository of biases in a new folder; CPU seconds of their ingest.

    Parameters
    ----------
    many : `int`
        Exposures, of all science detectors each.
    """
    camera, places = load(CAMERA), Places(folder / "repo")
    shots = exposures(camera, Nights(bias=many, dark=0, flat=0))
    observations = list(_files(camera, places, shots))
    with ingest.prepare(str(places.repository), Home(places.repository / "campaign"), camera) as repository:
        began = time.process_time()
        report = repository.ingest_raws(observations, "direct")
    assert len(report.new) == len(observations), report.refused[:1]
    return time.process_time() - began


if __name__ == "__main__":
    print(make(Path(sys.argv[1]), int(sys.argv[2])))
