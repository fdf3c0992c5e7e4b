"""What vLLM says behind embeddings, to standard output as JSON: run by the Python that has vLLM, which need not be this project's, with MODEL-FOLDER FILE.

The log-probabilities of the ten most probable next tokens, by their id.
"""

import json
import os
import sys

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}


def main() -> None:
    import torch
    from vllm import LLM, SamplingParams

    folder, file = sys.argv[1:]
    engine = LLM(
        model=folder, enable_prompt_embeds=True, skip_tokenizer_init=True, dtype="float32", enforce_eager=True, max_model_len=64, max_num_seqs=1
    )  # fmt: skip
    asked = SamplingParams(max_tokens=1, temperature=0, logprobs=10, detokenize=False)
    answer = engine.generate({"prompt_embeds": torch.load(file, weights_only=True)}, asked)
    first = answer[0].outputs[0].logprobs[0]
    print("\n" + json.dumps({str(word): one.logprob for word, one in first.items()}))


if __name__ == "__main__":
    main()
