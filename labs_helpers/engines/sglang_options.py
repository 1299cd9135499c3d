"""What a lab may ask of SGLang, and the arguments of its server for it: the same on the CPU and in a container.

Arguments: docs.sglang.io, "Server Arguments", and `sglang.srt.server_args` of release 0.5.23.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from labs_helpers.engines import options
from labs_helpers.engines.base import ModelSpec


class Speculative(BaseModel):
    """SGLang's --speculative-* arguments, each without that beginning."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())

    algorithm: Literal["EAGLE", "EAGLE3", "STANDALONE", "NGRAM"]
    draft_model_path: str | None = None
    num_steps: int | None = Field(None, ge=1, description="draft steps of one round, the depth of the tree")
    eagle_topk: int | None = Field(None, ge=1, description="branches of a node; 1 is a chain")
    num_draft_tokens: int | None = Field(None, ge=2, description="nodes that are verified, the root among them")
    ngram_max_trie_depth: int | None = Field(None, ge=2, description="tokens of history an n-gram may match")
    ngram_min_bfs_breadth: int | None = Field(None, ge=1)
    ngram_max_bfs_breadth: int | None = Field(None, ge=1)
    ngram_match_type: Literal["BFS", "PROB"] | None = None
    ngram_capacity: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _draft_where_it_is_needed(self) -> Speculative:
        if self.algorithm != "NGRAM" and self.draft_model_path is None:
            raise ValueError(f"{self.algorithm} needs draft_model_path, the folder of a draft model")
        if self.algorithm == "NGRAM" and self.draft_model_path is not None:
            raise ValueError("NGRAM drafts from earlier text and takes no draft_model_path")
        return self

    def arguments(self) -> list[str]:
        """As written on the command line; what is None is left to SGLang."""
        argv: list[str] = []
        for name, value in self.model_dump(exclude_none=True).items():
            argv += [f"--speculative-{name.replace('_', '-')}", str(value)]
        return argv


class SGLangOptions(options.Options):
    """Options with a meaning on every machine."""

    radix_cache: bool = Field(True, description="reuse the KV rows of a common prefix; False is the control")
    max_total_tokens: int | None = Field(None, ge=64, description="tokens the KV pool holds; None: SGLang's choice")
    page_size: int = Field(1, ge=1, description="tokens of one page, the unit in which prefixes are shared")
    max_running_requests: int = Field(64, ge=1, description="sequences decoded together")
    memory_fraction: float | None = Field(
        None, gt=0, lt=1, strict=False, description="part of memory for weights and KV pool; None: SGLang's choice"
    )
    chunked_prefill_size: int | None = Field(
        None, description="split longer prefills into chunks of so many tokens; -1: never; None: SGLang's choice"
    )
    schedule_policy: Literal["fcfs", "lpm", "dfs-weight", "lof", "random"] = Field(
        "fcfs", description="order of waiting requests: fcfs as they came, lpm longest cached prefix first, ..."
    )
    eviction_policy: Literal["lru", "lfu", "slru"] = Field("lru", description="which cached prefix goes first")
    grammar_backend: Literal["xgrammar", "outlines", "llguidance", "none"] = Field(
        "xgrammar", description="what constrains output to a schema, regex or grammar"
    )
    json_any_whitespace: bool = Field(
        False, description="let constrained JSON hold any amount of white space; a small model may write only that"
    )
    kv_cache_dtype: Literal["auto", "fp8_e4m3", "fp8_e5m2"] = Field(
        "auto", description="auto, fp8_e4m3 or fp8_e5m2; auto is the model's own type"
    )
    speculative: Speculative | None = Field(
        None, description="algorithm, draft_model_path, num_steps, eagle_topk, num_draft_tokens, ngram_*"
    )
    extra_args: tuple[str, ...] = Field((), strict=False, description="further arguments, passed on as they are")

    def arguments(self, model: ModelSpec, *, path: str, host: str, port: int) -> list[str]:
        """The arguments after `python -m sglang.launch_server`; `path` is the model as the server sees it."""
        argv = ["--model-path", path, "--served-model-name", model.name, "--host", host, "--port", str(port)]
        argv += ["--context-length", str(self.max_model_len)]
        argv += ["--page-size", str(self.page_size), "--max-running-requests", str(self.max_running_requests)]
        argv += ["--schedule-policy", self.schedule_policy, "--radix-eviction-policy", self.eviction_policy]
        argv += ["--grammar-backend", self.grammar_backend, "--kv-cache-dtype", self.kv_cache_dtype]
        # the witnesses: counters at /metrics, and cached tokens in every answer
        argv += ["--enable-metrics", "--enable-cache-report"]
        if not self.radix_cache:
            argv.append("--disable-radix-cache")
        if not self.json_any_whitespace:
            argv.append("--constrained-json-disable-any-whitespace")
        if self.max_total_tokens is not None:
            argv += ["--max-total-tokens", str(self.max_total_tokens)]
        if self.memory_fraction is not None:
            argv += ["--mem-fraction-static", str(self.memory_fraction)]
        if self.chunked_prefill_size is not None:
            argv += ["--chunked-prefill-size", str(self.chunked_prefill_size)]
        if self.speculative is not None:
            argv += self.speculative.arguments()
        return argv
