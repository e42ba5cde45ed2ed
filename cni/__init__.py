"""The library that CNI plugins are made of; it knows no plugin.

What a plugin author needs is in `cni.plugin`, `cni.conf`, `cni.request`, `cni.result` and `cni.skel`;
`docs/writing-a-plugin.md` shows them at work.
"""

__version__ = "0.1.0"
