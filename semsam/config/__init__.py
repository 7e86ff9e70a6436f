"""Configuration: closed keys, ``_BASE_`` files, ``IMPORTS`` of plug-ins, overrides."""

from .config import CfgNode, configurable, get_cfg, load_cfg

__all__ = ["CfgNode", "configurable", "get_cfg", "load_cfg"]
