"""The course model."""

from sglang.srt.models.llama import LlamaForCausalLM

EntryClass = LlamaForCausalLM
