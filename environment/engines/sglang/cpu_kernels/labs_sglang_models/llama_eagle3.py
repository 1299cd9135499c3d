"""Its EAGLE-3 draft."""

from sglang.srt.models.llama_eagle3 import LlamaForCausalLMEagle3

EntryClass = LlamaForCausalLMEagle3
