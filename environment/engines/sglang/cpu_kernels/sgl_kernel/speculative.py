"""The module under which SGLang's n-gram speculation looks for its tree operation."""

from sgl_kernel.tree import reconstruct_indices_from_tree_mask

__all__ = ["reconstruct_indices_from_tree_mask"]
