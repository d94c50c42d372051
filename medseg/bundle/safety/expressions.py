"""Which `$` expressions only compute: they are parsed, and every part must be known."""

import ast
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

REFERENCES = "__local_refs"
"""What MONAI puts in the place of `@`: a table of what is built already."""

GLOBALS = {"monai": "monai", "torch": "torch", "np": "numpy", "numpy": "numpy"}
"""Names that MONAI gives to every expression, and the modules they stand for."""

IMPORTABLE = re.compile(
    r"(copy|glob|json|math|os|os\.path|pathlib|random|re|sys|logging|itertools|functools|typing"
    r"|numpy|torch|monai|ignite|medseg)(\.\w+)*"
)
"""Modules whose import runs no code of a bundle. What is used of them is looked at by name."""

BUILTINS = frozenset(
    (
        "abs", "all", "any", "bool", "dict", "enumerate", "filter", "float", "int", "isinstance",
        "len", "list", "map", "max", "min", "range", "reversed", "round", "set", "sorted", "str",
        "sum", "tuple", "zip",
    )
)  # fmt: skip

FUNCTIONS = re.compile(
    r"(glob\.glob|math\.[a-z]\w*|os\.sep"
    r"|os\.path\.(join|basename|dirname|exists|isfile|isdir|splitext|normpath|abspath|sep)"
    r"|torch\.(device|tensor|as_tensor|from_numpy|cat|stack|where|softmax|sigmoid|argmax|max|min"
    r"|sum|mean|clamp|zeros|ones|zeros_like|ones_like|logical_(and|or|not)|any|all|unique|round"
    r"|u?int(8|16|32|64)?|b?float(16|32|64)?|double|half|long|short|bool)"
    r"|torch\.(cuda|backends\.mps)\.(is_available|device_count)"
    r"|torch\.nan_to_num|copy\.deepcopy|monai\.utils\.(enums\.)?[A-Z]\w+\.[A-Z][A-Z_]*"
    r"|torch\.nn\.functional\.((log_)?softmax|(log)?sigmoid|tanh|relu|leaky_relu|elu|gelu|silu"
    r"|softplus|one_hot|pad|interpolate|normalize|(adaptive_)?(avg|max)_pool[123]d)"
    r"|torch\.nn\.[A-Z]\w+"
    r"|numpy\.(u?int(8|16|32|64)?|float(16|32|64)?|double|bool_?|array|asarray|arange|linspace"
    r"|zeros|ones|zeros_like|ones_like|where|clip|prod|sum|mean|median|percentile|min|max|abs"
    r"|ceil|floor|round|rint|sqrt|log|exp|unique|isin|isnan|isfinite|logical_(and|or|not)|any|all"
    r"|concatenate|stack|expand_dims|squeeze|transpose|moveaxis|argmax|argmin|pi|inf|nan|newaxis)"
    r"|monai\.handlers\.from_engine)"
)
"""Functions and values of modules by their whole name: they read or compute, and no more."""

ATTRIBUTES = frozenset(
    (
        "T", "all", "amax", "amin", "any", "append", "argmax", "astype", "bool", "clamp", "clip",
        "contiguous", "copy", "count", "cpu", "cuda", "detach", "device", "dim", "double", "dtype",
        "endswith", "eval", "exists", "extend", "flatten", "float", "get", "half", "index", "int",
        "is_dir", "is_file", "item", "items", "join", "keys", "long", "lower", "lstrip",
        "max", "mean", "meta", "min", "module", "name", "ndim", "numpy", "parameters", "parent",
        "permute", "pixdim", "ravel", "replace", "reshape", "round", "rsplit", "rstrip", "shape",
        "sigmoid", "size", "softmax", "split", "sqrt", "squeeze", "startswith", "state_dict",
        "stem", "std", "strip", "suffix", "sum", "swapaxes", "to", "tolist", "transforms",
        "transpose", "type", "unsqueeze", "upper", "values", "view",
    )
)  # fmt: skip
"""Attributes and methods of any value that read or compute, and no more."""

LOADING = "torch.load"
"""Reads a file; by the arguments that may be given to it, tensors and plain values alone."""

JOINING = "torch.distributed.init_process_group"
"""Takes part in a training by several processes; the launcher says which."""

ENCODER_WEIGHTS = "encoder_weights"
"""Argument of networks of medseg that names weights to start a training from, or to fetch."""

FETCHING = ("pretrained", ENCODER_WEIGHTS)
"""Begins of the names of arguments that have weights fetched."""

UNPICKLING = {"allow_pickle": False, "pickle_module": None, "weights_only": True}
"""Arguments that have pickles read, each with its value that has not."""

LOADING_ARGUMENTS = ("f", "map_location", "weights_only", "mmap")

NODES = (
    ast.Expression, ast.Constant, ast.List, ast.Tuple, ast.Set, ast.Dict, ast.BinOp, ast.UnaryOp,
    ast.BoolOp, ast.Compare, ast.IfExp, ast.Slice, ast.Starred, ast.JoinedStr, ast.FormattedValue,
    ast.keyword, ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.expr_context,
)  # fmt: skip
"""Parts of an expression of which only the children can do harm."""


@dataclass
class Names:
    """The names that expressions of a bundle can use.

    Attributes:
        modules: Name to the dotted name it stands for.
        refused: Name that an import binds which may not run, to that import.
        is_component: Whether a dotted name is a class that configs may build.
        fetches: Whether a call of a dotted name may fetch weights: with how many arguments by
            their place, and which by their name that are false.
        functions: Whole names of functions and values that may be used.
        attributes: Attributes and methods that may be used of any value.
    """

    modules: dict[str, str] = field(default_factory=lambda: dict(GLOBALS))
    refused: dict[str, str] = field(default_factory=dict)
    is_component: Callable[[str], bool] = lambda _: False
    fetches: Callable[[str, int, frozenset[str]], bool] = lambda *_: False
    functions: re.Pattern[str] = FUNCTIONS
    attributes: frozenset[str] = ATTRIBUTES

    def take(self, text: str) -> bool:
        """Take note of an import.

        A name keeps what it stands for: an import that gives it to something else is refused, and
        so is every use of the name.

        Args:
            text: The statement, with its `$`.

        Returns:
            Whether it may run.
        """
        node = import_of(text)
        if node is None:
            return False
        alias = node.names[0]  # MONAI takes the first alone
        bound = alias.asname or alias.name
        is_from = isinstance(node, ast.ImportFrom)
        module = (node.module or "") if isinstance(node, ast.ImportFrom) else alias.name
        dotted = f"{module}.{alias.name}" if is_from else module
        is_known = IMPORTABLE.fullmatch(module) and not getattr(node, "level", 0)
        # which of two imports holds as an expression runs depends on their order
        if not is_known or bound in self.refused or self.modules.get(bound, dotted) != dotted:
            self.refused[bound] = text
            self.modules.pop(bound, None)
            return False
        self.modules[bound] = dotted
        return True


def import_of(text: str) -> ast.Import | ast.ImportFrom | None:
    """Return the import that MONAI would make of an expression.

    Args:
        text: Expression with its `$`.

    Returns:
        The statement; None where it is none.
    """
    if "import" not in text:
        return None
    try:
        body = ast.parse(text[1:]).body
    except (SyntaxError, ValueError):
        return None
    first = body[0] if body else None
    return first if isinstance(first, ast.Import | ast.ImportFrom) else None


def reason_against(text: str, names: Names) -> str:
    """Say why an expression may not run.

    Args:
        text: The Python expression that MONAI would evaluate, references replaced.
        names: What names stand for.

    Returns:
        A reason; empty for an expression that only computes.

    Examples:
        >>> reason_against("os.path.join(__local_refs['a'], 'b')", Names({"os": "os"}))
        ''
        >>> reason_against("os.system('ls')", Names({"os": "os"}))
        'os.system is not among what is known to compute alone'
    """
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "it does not parse"
    return _reason(tree.body, names, frozenset())


def _reason(node: ast.AST, names: Names, bound: frozenset[str]) -> str:
    reason = ""
    if isinstance(node, ast.Name):
        reason = _of_name(node.id, names, bound)
    elif isinstance(node, ast.Attribute):
        reason = _of_attribute(node, names, bound)
    elif isinstance(node, ast.Call):
        reason = _of_call(node, names, bound)
    elif isinstance(node, ast.Lambda):
        reason = _of_lambda(node, names, bound)
    elif isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        reason = _of_comprehension(node, names, bound)
    elif not isinstance(node, (*NODES, ast.Subscript)):
        reason = f"{type(node).__name__} is no part of expressions that compute alone"
    elif not (isinstance(node, ast.Subscript) and _is_reference(node)):
        reason = _first(ast.iter_child_nodes(node), names, bound)
    return reason


def _first(nodes: Iterable[ast.AST], names: Names, bound: frozenset[str]) -> str:
    """Return the first reason against one of several parts of an expression."""
    return next(filter(None, (_reason(node, names, bound) for node in nodes)), "")


def _of_lambda(node: ast.Lambda, names: Names, bound: frozenset[str]) -> str:
    """Say what is against a lambda, whose arguments are bound in its body and not in defaults."""
    taken = node.args
    arguments = [*taken.posonlyargs, *taken.args, *taken.kwonlyargs]
    arguments += [one for one in (taken.vararg, taken.kwarg) if one]
    defaults = [*taken.defaults, *(one for one in taken.kw_defaults if one)]
    return _first(defaults, names, bound) or _reason(
        node.body, names, bound | {one.arg for one in arguments}
    )


def _of_comprehension(
    node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp,
    names: Names,
    bound: frozenset[str],
) -> str:
    """Say what is against a comprehension; what it loops over first is outside of its names."""
    first, *further = node.generators
    targets = [part for one in node.generators for part in ast.walk(one.target)]
    if any(isinstance(part, ast.Attribute | ast.Subscript) for part in targets):
        return "it changes an attribute or an item"
    own = {part.id for part in targets if isinstance(part, ast.Name)}
    inner = [part for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr)]
    inner += [*first.ifs, *(part for one in further for part in (one.iter, *one.ifs))]
    return _reason(first.iter, names, bound) or _first(inner, names, bound | own)


def _is_reference(node: ast.Subscript) -> bool:
    return (
        isinstance(node.value, ast.Name)
        and node.value.id == REFERENCES
        and isinstance(node.slice, ast.Constant)
    )


def _of_name(name: str, names: Names, bound: frozenset[str]) -> str:
    if name in bound:
        return ""
    if name in names.refused:
        return f"{name} comes from {names.refused[name]!r}, which is not imported"
    if name in names.modules:  # a module as it is has no business in an expression
        return _of_dotted(names.modules[name], names)
    return "" if name in BUILTINS else f"{name} is not among the functions that compute alone"


def _of_dotted(dotted: str, names: Names) -> str:
    if names.functions.fullmatch(dotted) or names.is_component(dotted):
        return ""
    return f"{dotted} is not among what is known to compute alone"


def _of_attribute(node: ast.Attribute, names: Names, bound: frozenset[str]) -> str:
    if (dotted := _dotted(node, names.modules, bound)) is not None:
        return _of_dotted(dotted, names)
    if node.attr not in names.attributes:
        return f".{node.attr} is not among what is known to compute alone"
    return _reason(node.value, names, bound)


def _dotted(node: ast.expr, modules: Mapping[str, str], bound: frozenset[str]) -> str | None:
    """Return the whole name of what attributes of a module lead to; None of other values."""
    if isinstance(node, ast.Attribute):
        above = _dotted(node.value, modules, bound)
        return None if above is None else f"{above}.{node.attr}"
    if isinstance(node, ast.Name) and node.id in modules and node.id not in bound:
        return modules[node.id]
    return None


def _of_call(node: ast.Call, names: Names, bound: frozenset[str]) -> str:
    if not isinstance(node.func, ast.Name | ast.Attribute) or (
        isinstance(node.func, ast.Name) and node.func.id in bound
    ):
        return f"it calls {ast.unparse(node.func)}, which is no known function"
    dotted = _dotted(node.func, names.modules, bound) or ""
    if _may_fetch(node, dotted, names):
        return f"{ast.unparse(node.func)} may be told to fetch weights"
    if dotted != LOADING and not all(map(_leaves_pickles, node.keywords)):
        return f"{ast.unparse(node.func)} may be told to unpickle"
    parts = list(ast.iter_child_nodes(node))
    if dotted == LOADING:
        if not _loads_values_alone(node):
            return "torch.load may be told to load any object"
        parts.remove(node.func)
    if dotted == JOINING and (len(node.args) != 1 or node.keywords):
        return f"{JOINING} may be told to join processes elsewhere"
    return _first(parts, names, bound)


def _may_fetch(node: ast.Call, dotted: str, names: Names) -> bool:
    if any(one.arg is None for one in node.keywords):
        return True
    told = {str(one.arg): one.value for one in node.keywords}
    off = {
        name
        for name, value in told.items()
        if isinstance(value, ast.Constant) and value.value in (False, None)
    }
    if any(name.startswith(FETCHING) for name in told.keys() - off):
        return True
    return names.is_component(dotted) and names.fetches(dotted, len(node.args), frozenset(off))


def _leaves_pickles(keyword: ast.keyword) -> bool:
    value = keyword.value
    return keyword.arg not in UNPICKLING or (
        isinstance(value, ast.Constant) and value.value is UNPICKLING[keyword.arg]
    )


def _loads_values_alone(node: ast.Call) -> bool:
    """Whether torch reads no more than tensors and plain values, as it does unless told else."""
    is_plain = all(
        one.arg != "weights_only"
        or (isinstance(one.value, ast.Constant) and one.value.value is True)
        for one in node.keywords
    )
    starred = any(isinstance(one, ast.Starred) for one in node.args)
    known = all(one.arg in LOADING_ARGUMENTS for one in node.keywords)
    return is_plain and known and not starred and len(node.args) <= 2
