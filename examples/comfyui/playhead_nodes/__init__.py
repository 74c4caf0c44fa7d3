"""Playhead's nodes: worlds, scenes, scripts and recordings as images and latents (README.md)."""

from .nodes import comfy_entrypoint

__all__ = ["comfy_entrypoint"]
