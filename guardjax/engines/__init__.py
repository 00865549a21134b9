"""Engines that sample in another process, over HTTP: vLLM and SGLang."""
