"""The 47 templates of cp_pipe and cp_verify, written in upstream's shape, against a list of their variables."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from campaign.template.resolve import StepConfig, resolve

DATA = Path(__file__).resolve().parent.parent / "data"
COMMON = {"CALIB_COLLECTIONS", "INSTRUMENT", "RAW_COLLECTION", "REPO", "TAG", "TICKET", "USER_CALIB_PREFIX"}
NOW = datetime(2025, 2, 8, 1, 2, 3, tzinfo=UTC)
BASE = "u/jdoe/LSSTComCam/calib/DM-48520/DP1"
TICKET = "u/jdoe/LSSTComCam/calib/DM-48520"
CALIBS = ("LSSTComCam/calib/DM-48650", "LSSTComCam/calib/DM-47447/gainFixup/ptc.20241107a", "LSSTComCam/calib/x.1")
ENVIRONMENT = {
    "USER": "jdoe",
    "CP_PIPE_DIR": "/stack/cp_pipe",
    "CP_VERIFY_DIR": "/stack/cp_verify",
    "INSTRUMENT": "LSSTComCam",
    "TICKET": "DM-48520",
    "TAG": "DP1",
    "RERUN": "20250207a",
    "VERIFY_RERUN": "20250210a",
    "REPO": "/repo/main",
    "RAW_COLLECTION": "LSSTComCam/raw/all",
    # As in the worked example of DMTN-222: a line continuation here, a bare line end there.
    "CALIB_COLLECTIONS": f"{CALIBS[0]},\\\n   {CALIBS[1]},\n   {CALIBS[2]}",
    "USER_CALIB_PREFIX": "u/jdoe/",
    "BOOTSTRAP_RUN_NUMBER": "3",
    "SCRATCH": "/scratch/dp1",
    "LED_NAME": "m455l4",
}
DIMENSION = "lsst.ctrl.bps.quantum_clustering_funcs.dimension_clustering"


@dataclass(frozen=True)
class Shape:
    """One of upstream's files: its product, variables and other values."""

    pipeline: str
    product: str
    query: str
    inputs: str = "${USER_CALIB_PREFIX}${INSTRUMENT}/calib/${TICKET},${RAW_COLLECTION},${CALIB_COLLECTIONS}"
    rerun: str = "RERUN"
    submit: str = 'submitPath: "${SCRATCH}/submit/{outputRun}"\n'
    helpers: tuple[str, ...] = ()
    cluster: str = ""
    more: str = ""
    expected: tuple[str, ...] = (TICKET,)
    run: str = "20250208T010203Z"
    output: str = field(default="")


def _bootstraps(*kinds: str) -> tuple[str, ...]:
    prefix = "${USER_CALIB_PREFIX}$INSTRUMENT/calib/$TICKET/$TAG"
    return tuple(
        f"{kind}BootstrapRun: {prefix}/{kind}BootstrapGen.$RERUN/run${{BOOTSTRAP_RUN_NUMBER}}" for kind in kinds
    )


def _bootstrap(kind: str, *before: str) -> Shape:
    collection = f"{kind}BootstrapCollection"
    own = f"{collection}: ${{USER_CALIB_PREFIX}}$INSTRUMENT/calib/$TICKET/$TAG/{kind}BootstrapGen.${{RERUN}}"
    return Shape(
        f"cp{kind.title()}Bootstrap",
        f"{kind}BootstrapGen",
        f"${{SELECTION_{kind.upper()}_BOOTSTRAP}}",
        ",".join([f"{{{name}BootstrapRun}}" for name in before] + ["${RAW_COLLECTION},${CALIB_COLLECTIONS}"]),
        helpers=(own, *_bootstraps(*before), f'{kind}BootstrapRun: "{{{collection}}}/run${{BOOTSTRAP_RUN_NUMBER}}"'),
        cluster=f"  byExposure:\n    pipetasks: cp{kind.title()}BootstrapIsr\n    dimensions: exposure\n",
        more=f'  outputRun: "{{{kind}BootstrapRun}}"\n',
        expected=tuple(f"{BASE}/{name}BootstrapGen.20250207a/run3" for name in before),
        run="run3",
        output=f"{{{collection}}}",
    )


RAW = "${RAW_COLLECTION},${CALIB_COLLECTIONS}"


def _shapes() -> dict[str, Shape]:
    shapes = {
        "bps_biasBootstrap": _bootstrap("bias"),
        "bps_darkBootstrap": _bootstrap("dark", "bias"),
        "bps_flatBootstrap": _bootstrap("flat", "bias", "dark"),
        "bps_bias": Shape("cpBias", "biasGen", "${SELECTION_BIAS}"),
        "bps_dark": Shape("cpDark", "darkGen", "${SELECTION_DARK}", submit="submitPath: $SCRATCH/submit/{outputRun}\n"),
        "bps_bfk": Shape("cpBfk", "bfkGen", "${SELECTION_PTC_BFK}"),
        "bps_ptc": Shape("cpPtc", "ptcGen", "${SELECTION_PTC}"),
        "bps_cti": Shape("cpCti", "ctiGen", "${SELECTION_PTC_CTI}"),
        "bps_linearizer": Shape("cpLinearizer", "linearizerGen", "${SELECTION_PTC_LINEARIZER}"),
        "bps_crosstalk": Shape(
            "cpCrosstalk",
            "crosstalkGen",
            "${SELECTION_CROSSTALK}",
            submit='submitPath: "${SCRATCH}/submit/${outputRun}"\n',
        ),
        "bps_electrostaticBFDistortionMatrix": Shape(
            "cpElectrostaticBFDistortionMatrix", "electroBFDistortionMatrixGen", "${SELECTION_PTC_BF}"
        ),
        "bps_defects": Shape(
            "cpDefects",
            "defectGen",
            "instrument='${INSTRUMENT}'",
            f"{{biasBootstrapRun}},{{darkBootstrapRun}},{{flatBootstrapRun}},{RAW}",
            helpers=_bootstraps("bias", "dark", "flat"),
            expected=tuple(f"{BASE}/{kind}BootstrapGen.20250207a/run3" for kind in ("bias", "dark", "flat")),
        ),
        "bps_gain_correction": Shape(
            "cpGainCorrection", "gainCorrectionGen", "${SELECTION_GAIN_CORRECTION_FLAT}", RAW, expected=()
        ),
        "bps_illuminationCorrection": Shape(
            "cpIlluminationCorrection",
            "illuminationCorrectionGen",
            "${SELECTION_ILLUMINATION_CORRECTION}",
            RAW,
            more="pipetask:\n  fit: {requestMemory: 32000, requestCpus: 8, extraRunQuantumOptions: '-j 1 -n 8'}\n",
            expected=(),
        ),
        "bps_sky": Shape(
            "cpSky",
            "skyGen",
            "${SELECTION_SKY}",
            RAW,
            cluster="  byDetector:\n    pipetasks: cpSkyIsr,cpSkyImage\n    dimensions: detector\n"
            "    partitionDimensions: exposure\n    partitionMaxClusters: 3000\n",
            expected=(),
        ),
        "bps_flat_singleled_white": Shape(
            "cpFlat",
            "flatGen-white",
            "${SELECTION_FLAT_white} and band='white' and exposure.observation_reason='single_led_flat_${LED_NAME}'",
            more='extraQgraphOptions: "--config cpFlatCombine:connections.outputData=flat_${LED_NAME}"\n',
        ),
    }
    for kind in ("bfk", "bias", "dark", "defects", "illuminationCorrection", "ptc", "science"):
        variable = {"bfk": "PTC_BFK", "illuminationCorrection": "ILLUMINATION_CORRECTION"}.get(kind, kind.upper())
        title = kind[0].upper() + kind[1:]
        shapes[f"bps_verify_{kind}"] = Shape(
            f"verify{title}",
            f"verify{title}",
            f"${{SELECTION_{variable}_V}}",
            rerun="VERIFY_RERUN",
            submit="" if kind == "defects" else Shape.submit,
        )
    shapes["bps_verify_linearizer"] = Shape("verifyLinearizer", "verifyLinearizer", "${SELECTION_PTC_LINEARIZER_V}")
    for band in "ugrizy":
        query = f"${{SELECTION_FLAT_{band}}} and band='{band}'"
        shapes[f"bps_flat_{band}"] = Shape("cpFlat", f"flatGen-{band}", query)
        shapes[f"bps_flat_gradient_reference_{band}"] = Shape(
            "cpFlatGradientReference", f"flatGradientReferenceGen-{band}", query, RAW, expected=()
        )
        shapes[f"bps_verify_flat_{band}"] = Shape(
            "verifyFlat", f"verifyFlat-{band}", f"${{SELECTION_FLAT_{band}_V}} and band='{band}'", rerun="VERIFY_RERUN"
        )
        if band != "u":
            shapes[f"bps_flat_anaglyph_{band}"] = Shape(
                "cpFlatAnaglyph",
                f"flatAnaglyphGen-{band}",
                query,
                more='extraQgraphOptions: "--config cpFlatRedBlueCombine:weightOne=0.630"\n',
            )
    return shapes


SHAPES = _shapes()


def write(folder: Path, name: str) -> Path:
    """Write one of upstream's files."""
    shape = SHAPES[name]
    home = "CP_VERIFY_DIR" if "verify" in name else "CP_PIPE_DIR"
    output = (
        shape.output
        or f"${{USER_CALIB_PREFIX}}${{INSTRUMENT}}/calib/${{TICKET}}/${{TAG}}/{shape.product}.${{{shape.rerun}}}"
    )
    inside, outside = (shape.more, "") if shape.more.startswith("  outputRun") else ("", shape.more)
    path = folder / f"{name}.yaml"
    path.write_text(
        f'pipelineYaml: "${{{home}}}/pipelines/${{INSTRUMENT}}/{shape.pipeline}.yaml"\n\n'
        f'project: "${{TICKET}}"\ncampaign: "${{TICKET}}"\n{shape.submit}'
        + (f"# A comment.\nclusterAlgorithm: {DIMENSION}\ncluster:\n{shape.cluster}" if shape.cluster else "")
        + "".join(f"{helper}\n" for helper in shape.helpers)
        + f'payload:\n  payloadName: "${{INSTRUMENT}}_${{TICKET}}_x"\n  output: "{output}"\n{inside}'
        f'  butlerConfig: "${{REPO}}"\n  inCollection: "{shape.inputs}"\n  dataQuery: "{shape.query}"\n{outside}'
    )
    return path


def variables() -> dict[str, set[str]]:
    lines = (DATA / "template_variables.txt").read_text().splitlines()
    rows = [line.split(":") for line in lines if not line.startswith("#")]
    return {name: COMMON | set(names.split()) for name, names in rows}


def selections(names: set[str]) -> dict[str, str]:
    return {name: f"instrument='LSSTComCam' and {name}=1" for name in names if name.startswith("SELECTION_")}


def resolved(folder: Path, name: str) -> StepConfig:
    return resolve(str(write(folder, name)), ENVIRONMENT | selections(variables()[name]), now=NOW)


def test_all_47_are_there() -> None:
    assert set(SHAPES) == set(variables())
    assert len(SHAPES) == 47


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_upstream_template_resolves(name: str, tmp_path: Path) -> None:
    shape, asked = SHAPES[name], variables()[name]
    step = resolved(tmp_path, name)
    rerun = ENVIRONMENT[shape.rerun]
    assert set(step.variables) == (asked - {"outputRun"}) | {"SCRATCH"}
    assert step.output == f"{BASE}/{shape.product}.{rerun}"
    assert step.output_run == f"{step.output}/{shape.run}"
    assert step.submit_path == f"/scratch/dp1/submit/{step.output_run}"
    assert step.in_collections == (*shape.expected, "LSSTComCam/raw/all", *CALIBS)
    assert step.pipeline_yaml.endswith(f"/pipelines/LSSTComCam/{shape.pipeline}.yaml")
    assert step.pipeline_yaml.startswith("/stack/cp_verify/" if "verify" in name else "/stack/cp_pipe/")
    assert step.butler_config == "/repo/main"
    selection = next(
        (value for key, value in step.variables.items() if key.startswith("SELECTION_")), "instrument='LSSTComCam'"
    )
    assert step.data_query.startswith(selection)
    assert step.find("uniqProcName") == step.output_run.replace("/", "_")
    assert "$" not in str(step.values)
    assert "{" not in "".join(str(value) for value in step.values.values() if isinstance(value, str))


def test_flat_bootstrap_collections() -> None:
    """Upstream's file, with every feature in use."""
    environment = ENVIRONMENT | {
        "USER_CALIB_PREFIX": "",
        "BOOTSTRAP_RUN_NUMBER": "1",
        "CALIB_COLLECTIONS": "LSSTComCam/calib/DM-48650, \\\n LSSTComCam/calib/DM-46825",
        "SELECTION_FLAT_BOOTSTRAP": "instrument='LSSTComCam' and \\\n    physical_filter='r_03'",
    }
    step = resolve(str(DATA / "bps_flatBootstrap.yaml"), environment)
    base = "LSSTComCam/calib/DM-48520/DP1"
    assert step.output == f"{base}/flatBootstrapGen.20250207a"
    assert step.output_run == f"{base}/flatBootstrapGen.20250207a/run1"
    assert step.submit_path == f"/scratch/dp1/submit/{base}/flatBootstrapGen.20250207a/run1"
    assert step.in_collections == (
        f"{base}/biasBootstrapGen.20250207a/run1",
        f"{base}/darkBootstrapGen.20250207a/run1",
        "LSSTComCam/raw/all",
        "LSSTComCam/calib/DM-48650",
        "LSSTComCam/calib/DM-46825",
    )
    assert step.data_query == "instrument='LSSTComCam' and physical_filter='r_03'"
    assert step.find("payloadName") == "LSSTComCam_DM-48520_flatBootstrap"
    assert step.cluster == {
        "cpFlatBootstrapIsrByExposure": {"pipetasks": "cpFlatBootstrapIsr", "dimensions": "exposure"}
    }
    assert step.origins["payload.outputRun"] == "bps_flatBootstrap.yaml:15"
    assert step.warnings == ()


def test_crosstalk_output_run_is_a_key(tmp_path: Path) -> None:
    step = resolved(tmp_path, "bps_crosstalk")
    assert step.warnings == (
        "bps_crosstalk.yaml:5: ${outputRun} is taken as {outputRun}: outputRun is a key, not a variable",
    )


def test_verify_linearizer_is_named_by_the_wrong_rerun(tmp_path: Path) -> None:
    (warning,) = resolved(tmp_path, "bps_verify_linearizer").warnings
    assert "not by VERIFY_RERUN" in warning


def test_verify_defects_has_no_submit_path(tmp_path: Path) -> None:
    step = resolved(tmp_path, "bps_verify_defects")
    assert step.origins["submitPath"] == "packaged defaults"
    assert [warning for warning in step.warnings if "no submitPath" in warning]


def test_verification_rerun_of_an_earlier_year(tmp_path: Path) -> None:
    """As in the worked example of DMTN-222."""
    path = write(tmp_path, "bps_verify_bias")
    step = resolve(str(path), ENVIRONMENT | {"VERIFY_RERUN": "20240210a", "SELECTION_BIAS_V": "a=1"})
    assert step.warnings == ("VERIFY_RERUN=20240210a is of an earlier year than RERUN=20250207a",)


@pytest.mark.parametrize("kind", ["BIAS", "DARK"])
def test_bootstrap_selection_falls_back(kind: str, tmp_path: Path) -> None:
    """DMTN-222 of 2025-04 exports SELECTION_BIAS and SELECTION_DARK alone."""
    path = write(tmp_path, f"bps_{kind.lower()}Bootstrap")
    step = resolve(str(path), ENVIRONMENT | {f"SELECTION_{kind}": "exposure=7"})
    assert step.data_query == "exposure=7"
    assert step.warnings == (f"SELECTION_{kind}_BOOTSTRAP is not set: SELECTION_{kind} is taken in its place",)


def test_gain_correction_has_two_names(tmp_path: Path) -> None:
    path = write(tmp_path, "bps_gain_correction")
    both = {"SELECTION_GAIN_CORRECTION": "a=1", "SELECTION_GAIN_CORRECTION_FLAT": "b=1"}
    (warning,) = resolve(str(path), ENVIRONMENT | both).warnings
    assert warning == "SELECTION_GAIN_CORRECTION is set, but SELECTION_GAIN_CORRECTION_FLAT is what is read"


def test_text_after_a_variables_name(tmp_path: Path) -> None:
    """A version of bps_verify_flat_y.yaml closes its brace too late."""
    path = write(tmp_path, "bps_verify_flat_y")
    path.write_text(path.read_text().replace("FLAT_y_V} and band='y'", "FLAT_y_V and band='y'}"))
    step = resolve(str(path), ENVIRONMENT | {"SELECTION_FLAT_y_V": "exposure=7"})
    assert step.data_query == "exposure=7 and band='y'"
    (warning,) = step.warnings
    assert "is taken as ${SELECTION_FLAT_y_V} and band='y'" in warning


def test_and_behind_a_loose_or(tmp_path: Path) -> None:
    path = write(tmp_path, "bps_flat_g")
    (warning,) = resolve(str(path), ENVIRONMENT | {"SELECTION_FLAT_g": "exposure=1 or exposure=2"}).warnings
    assert "SELECTION_FLAT_g holds an 'or' outside parentheses" in warning
    assert resolve(str(path), ENVIRONMENT | {"SELECTION_FLAT_g": "(exposure=1 or exposure=2)"}).warnings == ()


def test_included_environment_may_extend_what_is_not_set(tmp_path: Path) -> None:
    """As bps_sky.yaml does with its cache's configuration."""
    (tmp_path / "cache.yaml").write_text("environment:\n  A_PATH: ${CP_PIPE_DIR}/config:${A_PATH}\n  THREADS: False\n")
    path = write(tmp_path, "bps_sky")
    path.write_text(f"{path.read_text()}includeConfigs:\n  - ${{HERE}}/cache.yaml\n")
    step = resolve(str(path), ENVIRONMENT | {"SELECTION_SKY": "exposure=1", "HERE": str(tmp_path)})
    assert step.values["environment"] == {"A_PATH": "/stack/cp_pipe/config:", "THREADS": "False"}
    assert step.origins["environment.A_PATH"] == "cache.yaml:2"
    assert step.warnings == ("cache.yaml:2: the variable A_PATH is not set: nothing is put in its place",)
