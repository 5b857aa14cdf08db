"""A program written for vLLM, unchanged: `python -m quire.compat.vllm examples/vllm_program.py [--model NAME]`."""

from vllm import LLM, EngineArgs
from vllm.utils.argparse_utils import FlexibleArgumentParser


def parse_args():
    parser = FlexibleArgumentParser()
    EngineArgs.add_cli_args(parser)
    parser.set_defaults(max_model_len=1024)
    parser.add_argument("--max-tokens", type=int, default=16)
    return parser.parse_args()


def main(args: dict):
    max_tokens = args.pop("max_tokens")
    llm = LLM(**args)
    sampling_params = llm.get_default_sampling_params()
    sampling_params.max_tokens = max_tokens
    sampling_params.temperature = 0.0
    for output in llm.generate(["The capital of France is"], sampling_params):
        print(f"{output.prompt!r} -> {output.outputs[0].text!r}")


if __name__ == "__main__":
    main(vars(parse_args()))
