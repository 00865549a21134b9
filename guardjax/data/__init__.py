"""From pictures and policies to padded arrays: intake, tokenizer, prompts, batches, sources."""
