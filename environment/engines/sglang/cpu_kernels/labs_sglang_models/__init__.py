"""The models the labs serve, named to SGLang so that it need not import the 300 others to find them.

SGLang's SGLANG_EXTERNAL_MODEL_PACKAGE: every module here offers an `EntryClass`, and these are SGLang's own. An
architecture that is not among them makes SGLang import all of its models, as it does without this.
"""
