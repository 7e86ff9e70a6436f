"""A CfgNode whose keys are closed, and the bridge from it to named arguments."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from fvcore.common.config import CfgNode as _CfgNode

from semsam.utils.registry import nearest_name


class CfgNode(_CfgNode):
    """fvcore's CfgNode (``_BASE_``, merge, freeze, dump) with closed keys and plug-ins.

    A key that is not in the defaults is an error that names the nearest known key. Plug-in modules
    listed under ``IMPORTS`` are imported, and may add keys, before anything else is merged.
    """

    @classmethod
    def load_yaml_with_base(cls, filename: str, allow_unsafe: bool = False) -> dict[str, Any]:
        """Read a yaml file merged over its ``_BASE_`` chain.

        Plug-in files in ``IMPORTS`` become absolute paths: each is found beside the file that names
        it, and a dumped configuration can be read from anywhere.

        Raises:
            ValueError: for yaml that does not parse or that builds Python objects.
            FileNotFoundError: if the file or one of its bases does not exist.
        """
        if allow_unsafe:
            raise ValueError("semsam reads safe yaml only")
        if not Path(filename).is_file():
            raise FileNotFoundError(f"config file '{filename}' does not exist")
        try:
            loaded = super().load_yaml_with_base(filename)
        except (yaml.YAMLError, AssertionError) as error:
            raise ValueError(f"{filename}: {error}") from error
        folder = Path(filename).resolve().parent
        if "IMPORTS" in loaded:
            beside = (folder / name for name in loaded["IMPORTS"])
            loaded["IMPORTS"] = [
                str(path) if path.suffix == ".py" and path.is_file() else name
                for name, path in zip(loaded["IMPORTS"], beside, strict=True)
            ]
        return loaded

    def merge_from_file(self, cfg_filename: str, allow_unsafe: bool = False) -> None:
        """Merge a yaml file and its ``_BASE_`` chain.

        Raises:
            ValueError: for an unknown key, a value of another type, or unsafe yaml.
            FileNotFoundError: if the file or one of its bases does not exist.
        """
        loaded = _CfgNode(self.load_yaml_with_base(cfg_filename, allow_unsafe))
        import_plugins(self, loaded.get("IMPORTS", []), relative_to=Path(cfg_filename).parent)
        _check_keys(loaded, self, source=str(cfg_filename))
        try:
            self.merge_from_other_cfg(loaded)
        except (KeyError, ValueError) as error:
            raise ValueError(f"{cfg_filename}: {error.args[0]}") from error

    def merge_from_list(self, cfg_list: Sequence[str]) -> None:
        """Merge overrides given as ``KEY VALUE`` pairs, as ``KEY=VALUE``, or as a mix of both.

        Raises:
            ValueError: for an unknown key, a key without a value, or a value of another type.
        """
        pairs = split_overrides(cfg_list)
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if key == "IMPORTS":
                import_plugins(self, self._decode_cfg_value(value), relative_to=Path.cwd())
            _check_path(key, self)
            if self._decode_cfg_value(value) == {}:
                raise ValueError(f"'{key}' cannot be replaced by an empty value")
        try:
            super().merge_from_list(pairs)
        except (KeyError, ValueError, AssertionError) as error:
            raise ValueError(f"override: {error.args[0]}") from error


def get_cfg() -> CfgNode:
    """Return a fresh copy of the default configuration."""
    from .defaults import default_cfg

    return default_cfg()


def load_cfg(config_file: str | Path, overrides: Sequence[str] = ()) -> CfgNode:
    """Return the defaults with a yaml file and overrides merged in, frozen.

    Args:
        config_file: yaml file, with ``_BASE_`` and ``IMPORTS`` if it likes.
        overrides: ``KEY VALUE`` or ``KEY=VALUE`` strings.
    """
    cfg = get_cfg()
    cfg.merge_from_file(str(config_file))
    cfg.merge_from_list(list(overrides))
    cfg.freeze()
    return cfg


def split_overrides(words: Sequence[str]) -> list[str]:
    """Turn ``["A.B=1", "C", "2"]`` into ``["A.B", "1", "C", "2"]``.

    Raises:
        ValueError: if a key is left without a value.
    """
    pairs: list[str] = []
    for word in words:
        if len(pairs) % 2 == 0 and isinstance(word, str) and "=" in word:
            pairs.extend(word.split("=", 1))
        else:
            pairs.append(word)
    if len(pairs) % 2:
        raise ValueError(f"override '{pairs[-1]}' has no value; write {pairs[-1]}=VALUE")
    return pairs


def import_plugins(cfg: CfgNode, modules: Sequence[str], relative_to: Path) -> None:
    """Import plug-in modules; a module's ``add_config(cfg)`` adds its keys to ``cfg``.

    Importing runs the module's code: name only modules that you trust.

    Args:
        cfg: the configuration that receives new keys.
        modules: dotted names, or paths of ``.py`` files (absolute, or relative to the yaml file or
            to the working directory).
        relative_to: folder of the yaml file.

    Raises:
        ValueError: if a module cannot be found.
    """
    for name in modules:
        module = _import_file(name, relative_to) if name.endswith(".py") else _import_dotted(name)
        if hasattr(module, "add_config"):
            module.add_config(cfg)


def _import_dotted(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and name.startswith(error.name):
            raise ValueError(f"IMPORTS: no module named '{name}'") from error
        raise


def _import_file(name: str, relative_to: Path) -> ModuleType:
    candidates = [Path(name)] if Path(name).is_absolute() else [relative_to / name, Path(name)]
    path = next((c.resolve() for c in candidates if c.is_file()), None)
    if path is None:
        raise ValueError(f"IMPORTS: no file '{name}' (looked at {', '.join(map(str, candidates))})")
    # The digest keeps two files of the same name apart; the module stays importable for pickling.
    key = f"semsam_plugin_{path.stem}_{hashlib.sha1(str(path).encode()).hexdigest()[:8]}"
    if key not in sys.modules:
        spec = importlib.util.spec_from_file_location(key, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[key] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[key]
            raise
    return sys.modules[key]


def _check_keys(loaded: _CfgNode, known: _CfgNode, source: str, prefix: str = "") -> None:
    """Report every unknown key of a file at once."""
    errors = list(_unknown_keys(loaded, known, prefix))
    if errors:
        raise ValueError(f"{source}: " + "; ".join(errors))


def _unknown_keys(loaded: _CfgNode, known: _CfgNode, prefix: str) -> list[str]:
    errors = []
    for key, value in loaded.items():
        if key not in known:
            errors.append(f"unknown key '{prefix}{key}'{nearest_name(key, list(known))}")
        elif isinstance(known[key], _CfgNode) and isinstance(value, dict):
            errors.extend(_unknown_keys(_CfgNode(value), known[key], f"{prefix}{key}."))
    return errors


def _check_path(key: str, known: _CfgNode) -> None:
    node: Any = known
    parts = key.split(".")
    for depth, part in enumerate(parts):
        if not isinstance(node, _CfgNode) or part not in node:
            names = list(node) if isinstance(node, _CfgNode) else []
            raise ValueError(
                f"unknown key '{'.'.join(parts[: depth + 1])}'{nearest_name(part, names)}"
            )
        node = node[part]


def configurable(init: Callable) -> Callable:
    """Let ``Class(cfg, ...)`` work beside ``Class(argument=value, ...)``.

    Decorates ``__init__``. When the first argument (or ``cfg=``) is a CfgNode, the class method
    ``from_config(cfg, ...)`` translates it into the named arguments of ``__init__``; otherwise
    ``__init__`` is called as written. detectron2's decorator of the same name does the same.
    """

    @functools.wraps(init)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
        cfg = args[0] if args else kwargs.get("cfg")
        if not isinstance(cfg, _CfgNode):
            init(self, *args, **kwargs)
            return
        from_config = type(self).from_config
        accepted = inspect.signature(from_config).parameters
        takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in accepted.values())
        # What from_config does not name goes to __init__ as it is.
        extra = {} if takes_all else {k: v for k, v in kwargs.items() if k not in accepted}
        named = {k: v for k, v in kwargs.items() if k not in extra}
        init(self, **{**from_config(*args, **named), **extra})

    return wrapped
