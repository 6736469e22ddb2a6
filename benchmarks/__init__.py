"""Ours beside a peer, one run each. A package of its own, since Opacus installs one of the same name."""
