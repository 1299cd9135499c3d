"""Trees of draft tokens: built from a draft's candidates, checked against what the target would say.

A tree of one request has m nodes. Node 0 is the last token that is certain, the others are guesses; a node's parent
always has a smaller number. Two links describe it, as in "first child, next sibling": `next_token[i]` is the first
child of node i, `next_sibling[i]` the next one with the same parent, -1 is none. The attention mask of a node shows
it itself and its ancestors. Called by SGLang's `kernels/ops/speculative/spec_tree.py` and `reconstruct_tree.py`;
the tree of candidates is EAGLE-2's (arXiv 2406.16858, section 4).
"""

from __future__ import annotations

import torch

MASK_OF_NEW_TOKENS = 1
"""SGLang's TreeMaskMode.QLEN_ONLY, the one its CPU backend asks for: the mask covers the new tokens, [B, m, m]."""


def build_tree_kernel_efficient_cpu(
    parent_list: torch.Tensor,
    selected: torch.Tensor,
    seq_lens: torch.Tensor,
    tree_mask: torch.Tensor,
    positions: torch.Tensor,
    retrieve_index: torch.Tensor,
    next_token: torch.Tensor,
    next_sibling: torch.Tensor,
    topk: int,
    depth: int,
    nodes: int,
    mask_mode: int,
) -> None:
    """Describe the tree that a draft's best candidates form.

    A draft numbers its candidates in groups of `topk`: group 0 are the children of node 0, group g > 0 those of
    candidate `parent_list[b, g]`. The chosen ones become nodes 1 to m - 1 in the order of their numbers.

    Args:
        parent_list: [B, groups]; may be [B, 0] when the tree has one level.
        selected: [B, m - 1], numbers of the chosen candidates, ascending.
        seq_lens: [B], tokens before node 0.
        tree_mask: [B * m * m] of bool; written.
        positions: [B * m], each node's position in its sequence; written.
        retrieve_index: [B, m], each node's row in the batch of all nodes; written.
        next_token, next_sibling: [B, m]; written.
        depth: levels below node 0 at most.

    Raises:
        NotImplementedError: a layout of the mask that the CPU backend does not use.
    """
    if int(mask_mode) != MASK_OF_NEW_TOKENS:
        raise NotImplementedError(f"build_tree_kernel_efficient_cpu does not write mask mode {int(mask_mode)}")
    batch = len(seq_lens)
    parents = _parents(parent_list, selected, topk)
    ancestors = _ancestors(parents, depth)
    tree_mask[: batch * nodes * nodes] = ancestors.flatten()
    _describe(parents, ancestors, seq_lens, positions, retrieve_index, next_token, next_sibling)


def reconstruct_indices_from_tree_mask(
    tree_mask: torch.Tensor,
    seq_lens: torch.Tensor,
    positions: torch.Tensor,
    retrieve_index: torch.Tensor,
    next_token: torch.Tensor,
    next_sibling: torch.Tensor,
    batch: int,
    nodes: int,
) -> None:
    """Describe the tree whose mask [B * m * m] is known, as n-gram speculation has it. Arguments as above."""
    ancestors = tree_mask[: batch * nodes * nodes].view(batch, nodes, nodes).bool().tril()
    number = torch.arange(nodes)
    # a node's parent is its nearest ancestor, and numbers grow downwards
    strict = ancestors.tril(-1)
    parents = torch.where(strict, number, -1).amax(-1)
    ancestors = strict | torch.eye(nodes, dtype=torch.bool)
    _describe(parents, ancestors, seq_lens, positions, retrieve_index, next_token, next_sibling)


def verify_tree_greedy_cpu(
    predicts: torch.Tensor,
    accept_index: torch.Tensor,
    accept_token_num: torch.Tensor,
    candidates: torch.Tensor,
    retrive_index: torch.Tensor,
    retrive_next_token: torch.Tensor,
    retrive_next_sibling: torch.Tensor,
    target_predict: torch.Tensor,
) -> None:
    """Walk each tree from its root as long as one of the children is what the target says. (SGLang's spelling.)

    Args:
        predicts: [B * m], the target's token at every accepted node; written.
        accept_index: [B, longest path], rows of the accepted nodes, node 0 first, the rest stays -1; written.
        accept_token_num: [B], accepted draft tokens, node 0 not counted; written.
        candidates: [B, m], the nodes' tokens.
        retrive_index, retrive_next_token, retrive_next_sibling: [B, m], the tree.
        target_predict: [B, m], the target's most likely next token after each node.
    """
    target = target_predict.flatten().tolist()
    longest = accept_index.shape[1]
    trees = zip(
        candidates.tolist(),
        retrive_index.tolist(),
        retrive_next_token.tolist(),
        retrive_next_sibling.tolist(),
        strict=True,
    )
    for number, (tokens, rows, first_child, sibling) in enumerate(trees):
        node, path = 0, [rows[0]]
        while len(path) < longest:
            node = first_child[node]
            while node != -1 and tokens[node] != target[path[-1]]:
                node = sibling[node]
            if node == -1:
                break
            path.append(rows[node])
        accept_index[number, : len(path)] = torch.tensor(path, dtype=accept_index.dtype)
        accept_token_num[number] = len(path) - 1
        predicts[path] = torch.tensor([target[row] for row in path], dtype=predicts.dtype)


def fill_bonus_tokens_cpu(
    accept_tokens: torch.Tensor, accept_lens: torch.Tensor, bonus_tokens: torch.Tensor, stride: int
) -> None:
    """The last accepted token of each request, the one the target adds by itself, into `bonus_tokens` [B]."""
    last = torch.arange(len(accept_lens)) * stride + accept_lens.long() - 1
    bonus_tokens.copy_(accept_tokens.flatten()[last])


def fill_accept_out_cache_loc_cpu(
    accept_index: torch.Tensor, cache_loc: torch.Tensor, accepted_loc: torch.Tensor
) -> None:
    """The KV rows of the accepted nodes, packed to the front of `accepted_loc`; -1 in `accept_index` is none."""
    accepted = accept_index.flatten()
    accepted = accepted[accepted >= 0].long()
    accepted_loc[: len(accepted)] = cache_loc[accepted].to(accepted_loc.dtype)


def _parents(parent_list: torch.Tensor, selected: torch.Tensor, topk: int) -> torch.Tensor:
    """[B, m]: each node's parent; -1 for node 0, and for a node whose parent was not chosen."""
    batch, guesses = selected.shape
    group = selected // topk
    parents = torch.full((batch, guesses + 1), -1, dtype=torch.long)
    if parent_list.shape[1]:
        candidate = parent_list.gather(1, group.clamp(max=parent_list.shape[1] - 1))
        found = selected.unsqueeze(1) == candidate.unsqueeze(2)
        parents[:, 1:] = torch.where(found.any(-1), found.int().argmax(-1) + 1, -1)
    parents[:, 1:][group == 0] = 0
    return parents


def _ancestors(parents: torch.Tensor, depth: int) -> torch.Tensor:
    """[B, m, m]: node j is node i, above it, or node 0."""
    batch, nodes = parents.shape
    seen = torch.eye(nodes, dtype=torch.bool).repeat(batch, 1, 1)
    above = parents
    for _ in range(depth):
        # an orphan's path ends: it marks itself again
        step = torch.where(above >= 0, above, torch.arange(nodes))
        seen.scatter_(2, step.unsqueeze(2), True)
        above = torch.where(above >= 0, parents.gather(1, above.clamp(min=0)), -1)
    seen[:, :, 0] = True
    return seen


def _describe(
    parents: torch.Tensor,
    ancestors: torch.Tensor,
    seq_lens: torch.Tensor,
    positions: torch.Tensor,
    retrieve_index: torch.Tensor,
    next_token: torch.Tensor,
    next_sibling: torch.Tensor,
) -> None:
    """Write what both kinds of tree have in common."""
    batch, nodes = parents.shape
    number = torch.arange(nodes)
    depth = ancestors.sum(-1) - 1
    positions[: batch * nodes] = (seq_lens.long().unsqueeze(1) + depth).flatten()
    retrieve_index.copy_(torch.arange(batch * nodes).view(batch, nodes))
    is_child = parents.unsqueeze(1) == number.unsqueeze(1)  # [B, parent, child]
    next_token.copy_(_first(is_child))
    related = (parents.unsqueeze(1) == parents.unsqueeze(2)) & (parents >= 0).unsqueeze(2)
    next_sibling.copy_(_first(related & (number > number.unsqueeze(1))))


def _first(which: torch.Tensor) -> torch.Tensor:
    """Number of the first True along the last dimension, -1 where there is none."""
    return torch.where(which.any(-1), which.int().argmax(-1), -1)
