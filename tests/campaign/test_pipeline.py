"""Pipelines: contents of the packaged ones, imports of files, and refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from campaign.errors import ConfigurationError
from campaign.kinds.table import tasks
from campaign.pipeline.makers import kind_of, maker, product_of
from campaign.pipeline.model import Pipeline, PipelineErrors, load
from campaign.planning.derived import is_derived
from templates import ROOT

CAMERAS = ("LSSTCam", "LSSTComCam", "LATISS", "STL1001E")
COMBINE = "lsst.cp.pipe.CalibCombineTask"
BY_FILTER = "lsst.cp.pipe.CalibCombineByFilterTask"


def packaged(kind: str, instrument: str = "STL1001E") -> Pipeline:
    return load(f"{ROOT}/cp_pipe/pipelines/{instrument}/cp{kind}.yaml", instrument, {})


def make(folder: Path, text: str, name: str = "p.yaml") -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return str(path)


def problems(path: str, options: str = "", instrument: str = "X") -> list[str]:
    with pytest.raises(PipelineErrors) as caught:
        load(path, instrument, {}, options)
    assert isinstance(caught.value, ConfigurationError)
    return [f"{p.where}: {p.what} -> {p.do}" for p in caught.value.problems]


#: Calibrations that the signature removal may find certified.
CERTIFIED = ("bias", "dark", "defects", "linearizer", "crosstalk", "ptc", "cti")


@pytest.mark.parametrize("instrument", CAMERAS)
@pytest.mark.parametrize("kind", ["Bias", "Dark", "Flat"])
def test_packaged_pipelines(kind: str, instrument: str) -> None:
    """Upstream's labels; each task reads outputs of earlier tasks, or raws."""
    pipeline = packaged(kind, instrument)
    middle = {"Bias": [], "Dark": [""], "Flat": ["Measure", "Normalize"]}[kind]
    pictures = ["Bin8", "Bin64", "Mosaic8", "Mosaic64"]
    assert list(pipeline.tasks) == [f"cp{kind}{part}" for part in ["Isr", *middle, "Combine", *pictures]]
    assert pipeline.warnings == ()
    there = {"raw", "cpScales", *CERTIFIED}
    for task in pipeline.tasks.values():
        assert set(task.inputs.values()) <= there, task.label
        there |= set(task.outputs.values())
    product = kind.lower()
    assert {product, f"{product}Mosaic8", f"{product}Mosaic64"} <= there
    assert pipeline.tasks[f"cp{kind}Combine"].outputs == {"outputData": product}
    assert {label: task.config["binning"] for label, task in pipeline.tasks.items() if "binning" in task.config} == {
        f"cp{kind}{what}{n}": n for what in ("Bin", "Mosaic") for n in (8, 64)
    }


@pytest.mark.parametrize("instrument", CAMERAS)
@pytest.mark.parametrize("kind", ["Bias", "Dark", "Flat"])
def test_packaged_bootstraps(kind: str, instrument: str) -> None:
    """In ADU, from one another; LSSTCam's flat alone is normalised over the focal plane."""
    pipeline = packaged(f"{kind}Bootstrap", instrument)
    isr, combine = (pipeline.tasks[f"cp{kind}Bootstrap{part}"] for part in ("Isr", "Combine"))
    assert not any(isr.config[f"do{name}"] for name in ("ApplyGains", "Linearize", "Crosstalk", "Defect"))
    assert (isr.config["doBias"], isr.config["doDark"]) == (kind != "Bias", kind == "Flat")
    assert [isr.inputs[name] for name in ("bias", "dark") if isr.config[f"do{name.title()}"]] == {
        "Bias": [], "Dark": ["biasBootstrap"], "Flat": ["biasBootstrap", "darkBootstrap"]
    }[kind]  # fmt: skip
    assert combine.outputs["outputData"] == f"{kind.lower()}Bootstrap"
    flat = "InputList" if instrument == "LSSTCam" else "MeanStats"
    assert combine.config["exposureScaling"] == {"Bias": "Unity", "Dark": "DarkTime", "Flat": flat}[kind]
    assert ("cpFlatBootstrapNormalize" in pipeline.tasks) == (kind == "Flat" and instrument == "LSSTCam")


def test_corrections_of_each_step() -> None:
    isr = {kind: packaged(kind).tasks[f"cp{kind}Isr"] for kind in ("Bias", "Dark", "Flat")}
    assert [(isr[k].config["doBias"], isr[k].config["doDark"], isr[k].config["doFlat"]) for k in isr] == [
        (False, False, False),
        (True, False, False),
        (True, True, False),
    ]
    assert all(
        task.config["doLinearize"] and task.config["doCrosstalk"] and task.config["doApplyGains"]
        for task in isr.values()
    )
    assert isr["Flat"].settings == {
        "bias": True,
        "dark": True,
        "saturation": True,
        "serial": "median",
        "skip_columns": 3,
        "parallel": True,
        "quadratic": True,
    }


def test_scaling_and_masks_of_each_step() -> None:
    combine = {kind: packaged(kind).tasks[f"cp{kind}Combine"] for kind in ("Bias", "Dark", "Flat")}
    assert [task.config["exposureScaling"] for task in combine.values()] == ["Unity", "DarkTime", "InputList"]
    assert [task.config["mask"] for task in combine.values()] == [
        ["DETECTED", "INTRP"],
        ["SAT", "DETECTED", "INTRP", "CR"],
        ["SAT", "DETECTED", "INTRP"],
    ]
    statistics = {"statistic": "MEANCLIP", "nsigma": 3.0, "passes": 3, "variance": "ESTIMATOR", "weighting": "AUTO"}
    assert combine["Bias"].settings == {"type": "bias", **statistics, "max_bad": 0.5}
    assert [task.dimensions for task in combine.values()] == [
        ("instrument", "detector"),
        ("instrument", "detector"),
        ("instrument", "detector", "physical_filter"),
    ]
    assert packaged("Dark").tasks["cpDark"].settings == {"fwhm": 3.0, "grow": 2}
    assert packaged("Flat").tasks["cpFlatNormalize"].settings == {"level": "DETECTOR", "iterations": 10}


def test_kinds() -> None:
    kinds = {label.removeprefix("cpFlat"): (t.kernel, t.kind) for label, t in packaged("Flat").tasks.items()}
    assert kinds == {
        "Isr": ("isr", "fused"),
        "Measure": ("flat_measure", "gang"),
        "Normalize": ("flat_normalise", "serial"),
        "Combine": ("combine", "gang"),
        "Bin8": ("bin", "fused"),
        "Bin64": ("bin", "fused"),
        "Mosaic8": ("mosaic", "serial"),
        "Mosaic64": ("mosaic", "serial"),
    }


@pytest.mark.parametrize(
    ("name", "of", "kind"),
    [
        ("Bias", "bias", "bias"), ("BiasBootstrap", "bias", "bias"), ("Dark", "dark", "dark"), ("Flat", "flat", "flat"),
        ("Cti", "flat", "cti"), ("Bfk", "flat", "bfk"), ("Defects", "", "defects"),
        ("Sky", "science", "sky"), ("Fringe", "science", "fringe"),
        ("Crosstalk", "science", "crosstalk"),
    ],
)  # fmt: skip
def test_the_product_of_a_pipeline_and_its_frames(name: str, of: str, kind: str) -> None:
    pipeline, product = packaged(name), f"{name[0].lower()}{name[1:]}"
    made = kind_of(pipeline)
    assert (made.name, product_of(pipeline), is_derived(pipeline)) == (kind, product, of == "")
    assert product in made.datasets and getattr(made.made_of, "type", "") == of


def test_a_task_behind_the_curve_makes_the_ptc(tmp_path: Path) -> None:
    pipeline = packaged("PtcAdjusted")
    made = maker(pipeline)
    assert (kind_of(pipeline).name, product_of(pipeline), made.label) == ("ptc", "ptc", "cpPtcAdjustGainRatios")
    assert pipeline.tasks["cpPtcSolve"].outputs["outputPtcDataset"] == "ptcUnadjusted"
    assert (made.settings["ratio_flats"], made.settings["bin"], made.settings["most"]) == (50, 8, 0.05)
    assert maker(packaged("Ptc")).label == "cpPtcSolve" and "ratio_flats" not in maker(packaged("Ptc")).settings


def test_linearizers_that_are_made_on_the_way() -> None:
    for name, label in (("FocalPlane", "cpLinearizerSolveNormalized"), ("Ptc", "cpLinearizerSolve")):
        pipeline = packaged(f"Linearizer{name}")
        assert (maker(pipeline).label, product_of(pipeline), kind_of(pipeline).name) == (label, *["linearizer"] * 2)
    curves, plane, plain = (packaged(f"Linearizer{n}") for n in ("Ptc", "FocalPlane", ""))
    assert maker(curves).inputs["inputLinearizerPtc"] == "linearizerPtc"
    assert maker(plane).inputs["inputNormalization"] == "linearizerNormalization"
    assert plane.tasks["cpLinearizerSolve"].outputs == {"outputLinearizer": "linearizerUnnormalized"}
    # fields that do not count leave no trace: runs of before are not made anew
    own = maker(plain)
    assert own.inputs == {"dummy": "raw", "inputPtc": "ptc"}
    assert not {"polynomialOrder", "useLinearizerPtc"} & own.config.keys() and "order" not in own.settings
    polynomial = load(plain.path, "X", {}, "--config cpLinearizerSolve:linearityType=Polynomial")
    assert maker(polynomial).settings["order"] == 3


def test_a_combine_of_no_kind_is_refused(tmp_path: Path) -> None:
    pipeline = load(make(tmp_path, f"tasks: {{a: {{class: {COMBINE}, config: {{calibrationType: drak}}}}}}\n"), "X", {})
    with pytest.raises(ConfigurationError, match="'drak' is no product kind\n  -> known: bias, dark, flat"):
        kind_of(pipeline)


def test_a_pipeline_makes_one_product(tmp_path: Path) -> None:
    both = "imports: [{location: $CP_PIPE_DIR/pipelines/any/cpBias.yaml}, {location: $CP_PIPE_DIR/pipelines/any/%s}]"
    for other, label in (("cpDark.yaml", "cpDarkCombine"), ("cpDefects.yaml", "cpDefects")):
        pipeline = load(make(tmp_path, both % other), "X", {"CP_PIPE_DIR": f"{ROOT}/cp_pipe"})
        with pytest.raises(ConfigurationError, match=f"2 tasks make a product each.*: cpBiasCombine, {label}"):
            kind_of(pipeline)
        with pytest.raises(ConfigurationError, match="2 tasks make a product each"):
            is_derived(pipeline)
    none = load(make(tmp_path, both % "cpDark.yaml") + "#cpBiasIsr,cpDarkIsr", "X", {"CP_PIPE_DIR": f"{ROOT}/cp_pipe"})
    with pytest.raises(ConfigurationError, match="no task makes a product"):
        product_of(none)


def test_any_instrument_without_its_own_pipeline() -> None:
    assert packaged("Flat").path == f"{ROOT}/cp_pipe/pipelines/any/cpFlat.yaml"
    assert packaged("Bias", "LATISS").path == f"{ROOT}/cp_pipe/pipelines/LATISS/cpBias.yaml"
    assert packaged("Bias", "LATISS").tasks["cpBiasIsr"].config["crosstalk.doQuadraticCrosstalkCorrection"] is False
    assert packaged("Bias", "LSSTComCam").tasks["cpBiasIsr"].config["doDeferredCharge"] is True


def test_resource_location() -> None:
    """Where newer templates of upstream have their pipelines."""
    assert load("resource://lsst.cp.pipe/resources/pipelines/X/cpBias.yaml", "X", {}).path.endswith("any/cpBias.yaml")


def test_every_mapped_default_is_possible() -> None:
    for cls, task in tasks().items():
        for name, field in task.fields.items():
            assert field.objection(field.default) == "", (cls, name)


def test_configuration_is_laid_over_what_is_imported(tmp_path: Path) -> None:
    make(
        tmp_path,
        f"parameters: {{n: 4}}\ntasks: {{a: {{class: {COMBINE}, config: {{clip: 2.5, nIter: parameters.n}}}}}}\n",
        "a.yaml",
    )
    task = f"{{class: {COMBINE}, config: [{{clip: 3.5}}, {{clip: 4}}]}}"
    text = f"imports: a.yaml\nparameters: {{n: 5}}\ntasks: {{a: {task}}}\n"
    config = load(make(tmp_path, text), "X", {}).tasks["a"].config
    assert (config["clip"], config["nIter"], config["combine"]) == (4, 5, "MEANCLIP")


def test_another_class_takes_the_place_of_the_imported_one(tmp_path: Path) -> None:
    make(tmp_path, f"tasks: {{a: {{class: {COMBINE}, config: {{clip: 2.5}}}}}}\n", "a.yaml")
    text = "imports: [{location: a.yaml}]\ntasks: {a: lsst.cp.pipe.CpDarkTask}\n"
    task = load(make(tmp_path, text), "X", {}).tasks["a"]
    assert (task.kernel, task.config) == ("cosmic", {"psfFwhm": 3.0, "crGrow": 2})


def test_parts_of_a_pipeline(tmp_path: Path) -> None:
    make(
        tmp_path,
        f"tasks: {{a: {COMBINE}, b: {COMBINE}, c: {COMBINE}}}\nsubsets: {{two: {{subset: [a, b]}}, one: [c]}}\n",
        "a.yaml",
    )
    path = make(tmp_path, "imports: [{location: a.yaml, exclude: [c]}]\n")
    assert list(load(path, "X", {}).tasks) == ["a", "b"]
    assert load(path, "X", {}).subsets == {"two": ("a", "b")}
    make(tmp_path, "imports: {location: $HERE/a.yaml, include: c}\n", "c.yaml")
    assert list(load(str(tmp_path / "c.yaml"), "X", {"HERE": str(tmp_path)}).tasks) == ["c"]
    whole = str(tmp_path / "a.yaml")
    assert list(load(f"{whole}#two", "X", {}).tasks) == ["a", "b"]
    assert list(load(f"{whole}#one,b", "X", {}).tasks) == ["b", "c"]
    assert problems(f"{whole}#bb") == [": #bb: there is no such task -> known: a, b, c, one, two"]


def test_configuration_from_the_command_line() -> None:
    path = f"{ROOT}/cp_pipe/pipelines/any/cpFlat.yaml"
    options = (
        "--config cpFlatCombine:clip=4.5 -c cpFlatCombine:connections.outputData=flat_x --config=cpFlatIsr:doDark=False"
    )
    tasks = load(path, "X", {}, options).tasks
    assert tasks["cpFlatCombine"].settings["nsigma"] == 4.5
    assert tasks["cpFlatCombine"].outputs == {"outputData": "flat_x"}
    assert tasks["cpFlatIsr"].config["doDark"] is False
    assert problems(path, "--config cpFlatCombin:clip=1 --config cpFlatCombine:clp=1 --foo -c x") == [
        "extraQgraphOptions: there is no task cpFlatCombin -> did you mean cpFlatCombine?",
        "extraQgraphOptions: --foo : not understood -> --config label:field=value",
        "extraQgraphOptions: -c x: not understood -> --config label:field=value",
        f"extraQgraphOptions: cpFlatCombine: {BY_FILTER} has no field clp -> did you mean clip?",
    ]
    assert "No closing quotation" in problems(path, "--config 'a")[0]


def test_fields_of_a_correction_count_where_it_is_asked_for() -> None:
    """A list on the command line, too; earlier runs knew no doFringe, and their pipelines look as they did."""
    usual = packaged("Sky").tasks["cpSkyIsr"]
    assert usual.config["doFlat"] and "flat" in usual.inputs
    assert not {name for name in usual.config if "ringe" in name} and "fringe" not in usual.inputs
    path = f"{ROOT}/cp_pipe/pipelines/X/cpSky.yaml"
    options = (
        "--config cpSkyIsr:doFringe=true --config cpSkyIsr:fringe.num=2000 --config cpSkyIsr:fringe.filters='[\"y\"]'"
    )
    asked = load(path, "X", {}, options).tasks["cpSkyIsr"]
    assert (asked.config["doFringe"], asked.config["fringe.filters"]) == (True, ["y"])
    assert asked.settings["fringe_places"] == 2000 and asked.inputs["fringe"] == "fringe"


def test_a_pipeline_of_a_product_that_cannot_be_made(tmp_path: Path) -> None:
    path = make(
        tmp_path, "tasks: {a: lsst.cp.pipe.Any, b: lsst.cp.pipe.Other}", "cpElectrostaticBFDistortionMatrix.yaml"
    )
    (found,) = problems(path)
    assert "is an electrostatic model of pixel boundaries" in found and "bps_bfk" in found


def test_nested_and_dotted_fields_are_the_same(tmp_path: Path) -> None:
    config = "{overscan: {serial: none, skipColumns: 0}, overscan.parallel: false}"
    text = f"tasks: {{a: {{class: lsst.ip.isr.IsrTaskLSST, config: {config}}}}}\n"
    settings = load(make(tmp_path, text), "X", {}).tasks["a"].settings
    assert (settings["serial"], settings["skip_columns"], settings["parallel"]) == ("none", 0, False)


def test_contracts_are_pointed_out(tmp_path: Path) -> None:
    text = f"tasks: {{a: {COMBINE}}}\ncontracts: [a.clip == 3.0]\n"
    assert load(make(tmp_path, text), "X", {}).warnings == ("p.yaml:2: contracts are not looked at",)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (
            "lsst.cp.pipe.ptc.CpPtcTask",
            "p.yaml:1: a: the task class lsst.cp.pipe.ptc.CpPtcTask is not mapped to a kernel -> mapped are",
        ),
        ("lsst.cp.pipe.CalibCombinTask", "did you mean lsst.cp.pipe.CalibCombineTask?"),
        ("{config: {clip: 3}}", "a: class is missing"),
        (f"{{class: {COMBINE}, confg: {{}}}}", "a: unknown key confg"),
        (f"{{class: {COMBINE}, config: [3]}}", "a: config: must hold keys"),
        (f"{{class: {COMBINE}, config: {{python: 'config.clip = 1'}}}}", "a: config.python is not supported"),
        (f"{{class: {COMBINE}, config: {{file: x.py}}}}", "a: config.file is not supported"),
        (f"{{class: {COMBINE}, config: {{clipp: 3}}}}", "has no field clipp -> did you mean clip?"),
        (f"{{class: {COMBINE}, config: {{clip: x}}}}", "clip: 'x': a value of the type float was expected"),
        (f"{{class: {COMBINE}, config: {{clip: true}}}}", "a value of the type float was expected"),
        (f"{{class: {COMBINE}, config: {{clip: .nan}}}}", "at least 0.1 was expected"),
        (f"{{class: {COMBINE}, config: {{clip: .inf}}}}", "at least 0.1 was expected"),
        (f"{{class: {COMBINE}, config: {{nIter: 0}}}}", "at least 1 was expected"),
        (f"{{class: {COMBINE}, config: {{nIter: 2.5}}}}", "a value of the type int was expected"),
        (f"{{class: {COMBINE}, config: {{mask: [1]}}}}", "a list of str was expected"),
        (f"{{class: {COMBINE}, config: {{mask: SAT}}}}", "a value of the type list was expected"),
        (f"{{class: {COMBINE}, config: {{combine: SUM}}}}", "possible are MEANCLIP | MEDIAN | MEAN"),
        (
            f"{{class: {COMBINE}, config: {{doVignette: yeah}}}}",
            "doVignette: 'yeah': a value of the type bool was expected",
        ),
        (f"{{class: {COMBINE}, config: {{clip: parameters.x}}}}", "a: clip: there is no parameter x"),
        (f"{{class: {COMBINE}, config: {{connections.outputDat: x}}}}", "did you mean connections.outputData?"),
        (f"{{class: {COMBINE}, config: {{connections.outputData: 3}}}}", "has no field connections.outputData"),
    ],
)
def test_a_task_that_is_refused(task: str, message: str, tmp_path: Path) -> None:
    (found,) = problems(make(tmp_path, f"tasks: {{a: {task}}}\n"))
    assert message in found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("taks: {}", "p.yaml:1: unknown key taks -> did you mean tasks?"),
        ("tasks: [a]", "tasks: must hold keys"),
        ("tasks: {}", "p.yaml: there are no tasks"),
        ("imports: p.yaml", "p.yaml -> p.yaml: imports itself"),
        ("imports: nix.yaml", "p.yaml:1: there is no pipeline"),
        ("imports: [{locatin: x}]", "imports: unknown key locatin -> did you mean location?"),
        ("imports: [{include: x}]", "imports: location is missing"),
        ("imports: $NIX/a.yaml", "the variable NIX is not set"),
        ("a: [", "not YAML"),
    ],
)
def test_a_pipeline_that_is_refused(text: str, message: str, tmp_path: Path) -> None:
    assert any(message in line for line in problems(make(tmp_path, f"{text}\n")))


def test_labels_that_are_not_imported(tmp_path: Path) -> None:
    make(tmp_path, f"tasks: {{a: {COMBINE}}}\nsubsets: {{s: [b]}}\n", "a.yaml")
    found = problems(make(tmp_path, "imports: [{location: a.yaml, include: [a, x], exclude: [y]}]\n"))
    assert [line.split(" -> ")[0] for line in found] == [
        "a.yaml:2: subset: there is no task b",
        "p.yaml:1: imports: there is no task x",
        "p.yaml:1: imports: there is no task y",
    ]


def test_a_pipeline_of_nearly_the_same_name() -> None:
    (found,) = problems(f"{ROOT}/cp_pipe/pipelines/X/cpBia.yaml")
    assert found.endswith("did you mean cpBias.yaml?")
