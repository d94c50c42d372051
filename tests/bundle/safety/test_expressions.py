"""Expressions that compute pass; all others are refused, whatever they hide behind."""

import pytest

from medseg.bundle.safety.expressions import Names, reason_against
from medseg.bundle.safety.targets import is_component


@pytest.fixture(scope="module")
def names() -> Names:
    found = Names(is_component=is_component)
    for text in (
        "$import os", "$import glob", "$import math", "$import medseg",
        "$from numpy import uint8 as u8",
    ):  # fmt: skip
        assert found.take(text)
    return found


@pytest.mark.parametrize(
    "text",
    [
        "__local_refs['network_def'].to(__local_refs['device'])",
        "torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "os.path.join(__local_refs['bundle_root'], 'models', 'model.pt')",
        "list(sorted(glob.glob(__local_refs['dataset_dir'] + '/*.nii.gz')))",
        "[{'image': i, 'n': n} for n, i in enumerate(__local_refs['datalist']) if n > 2]",
        "lambda x: x > 0",
        "lambda x, *rest, **more: torch.where(x > 0.5, 1, 0).astype(np.uint8)",
        "__local_refs['preprocessing'].transforms[:-1]",
        "np.array([1, 2]) / math.sqrt(2)",
        "monai.transforms.Compose",
        "f\"{__local_refs['root']}/a\"",
        "u8",
        "{**__local_refs['a'], 'b': -1}",
        "[x + y for x in __local_refs['a'] if x for y in range(x)]",
        "lambda x, scale=math.sqrt(2), *, low=0: [x * scale for x in x]",
        "lambda x: torch.nn.functional.avg_pool3d(torch.nn.functional.softmax(x, dim=1), 2)",
    ],
)
def test_expressions_that_compute_pass(text: str, names: Names) -> None:
    assert reason_against(text, names) == ""


@pytest.mark.parametrize(
    "text",
    [
        "os.system('true')",
        "os.environ['HOME']",
        "os",
        "(lambda m: m.system('true'))(os)",
        "[m.system('true') for m in [os]]",
        "__import__('subprocess').run(['true'])",
        "eval('1')",
        "open('file', 'w').write('x')",
        "getattr(torch, 'load')('x')",
        "torch.hub.load('a', 'b')",
        "torch.os.system('true')",
        "torch.nn.functional.importlib.import_module('os')",
        "np.load('x.npy', allow_pickle=True)",
        "().__class__.__base__.__subclasses__()",
        "'{0.__class__}'.format(1)",
        "(1).__class__",
        "monai.bundle.download('a')",
        "monai.networks.nets.resnet50(pretrained=True)",
        "monai.networks.nets.resnet50(**__local_refs['arguments'])",
        "monai.transforms.LoadImage(reader='os.system', command='true')",
        "monai.apps.download_url('a', 'b')",
        "monai.utils.optional_import('os')",
        "__local_refs['evaluator'].run()",
        "__local_refs['a'](__local_refs['b'])",
        "__local_refs",
        "math.__loader__",
        "(x := os)",
        "setattr(torch.backends.cudnn, 'benchmark', True)",
        "map(os.system, ['true'])",
        "sorted(['true'], key=os.system)",
        "type('A', (), {})",
        "unknown(1)",
        "1 +",
        "[os := 1]",
        "await x",
        "lambda os=os.system: os('true')",
        "math.__dict__['__builtins__']",
        "[os for os in map(os.system, ['true'])]",
        "[exec for exec in map(exec, ['1'])]",
        "{exec: 1 for exec in map(exec, ['1'])}",
        "[1 for a in [1] if exec for b in [2]]",
        "lambda x, exec=exec: list(map(exec, ['1']))",
        "lambda x, *, run=os.system: run",
        "[0 for np.pi in [3]]",
        "[0 for __local_refs['a'].device in ['cpu']]",
        "list(map(torch.nn.functional.__builtins__['exec'], ['1']))",
        "torch.nn.functional.importlib",
        "torch.nn.__builtins__",
        "torch.nn.functional",
        "monai.data.NumpyReader(allow_pickle=True)",
        "medseg.networks.build_network('unet_resnet', encoder_weights='imagenet')",
    ],
)
def test_what_may_run_anything_is_refused(text: str, names: Names) -> None:
    assert reason_against(text, names)


@pytest.mark.parametrize(
    ("first", "second"),
    [("$import math as x", "$import os as x"), ("$import os as x", "$import math as x")],
)
def test_a_name_that_two_imports_give_to_different_things_is_refused(
    first: str, second: str
) -> None:
    names = Names()
    assert names.take(first)
    assert names.take(first)
    assert not names.take(second)
    assert not names.take("$import math as torch")
    assert reason_against("x.system('true')", names)
    assert reason_against("torch.save(1, 'file')", names)


@pytest.mark.parametrize("text", ["$import subprocess", "$from scripts.net import Net",
                                  "$from . import net", "$import monailabel"])  # fmt: skip
def test_names_of_imports_that_are_not_made_are_refused(text: str) -> None:
    names = Names()
    assert not names.take(text)
    (bound,) = names.refused
    assert text in reason_against(f"{bound}", names)


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("torch.load(__local_refs['path'], map_location=torch.device('cpu'))", True),
        ("torch.load('a.pt', weights_only=True)['code']", True),
        ("torch.load('a.pt', weights_only=False)", False),
        ("torch.load('a.pt', weights_only=__local_refs['safe'])", False),
        ("torch.load('a.pt', 'cpu', __local_refs['pickle'])", False),
        ("torch.load('a.pt', pickle_module=__local_refs['pickle'])", False),
        ("torch.load(*__local_refs['arguments'])", False),
        ("torch.load('a.pt', **__local_refs['arguments'])", False),
        ("[torch.load, 1]", False),
        ("(lambda load: load('a.pt', weights_only=False))(torch.load)", False),
        ("monai.utils.CommonKeys.PRED", True),
        ("copy.deepcopy(__local_refs['preprocessing'])", True),
    ],
)
def test_files_are_loaded_as_values_alone(text: str, *, allowed: bool) -> None:
    known = Names(is_component=is_component)
    assert known.take("$import copy")
    assert (reason_against(text, known) == "") == allowed
