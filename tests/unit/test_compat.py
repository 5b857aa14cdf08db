"""Programs written for vLLM, run unchanged by `python -m quire.compat.vllm`; and names that are not there."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import quire
from quire.compat.vllm import names

ROOT = Path(__file__).resolve().parents[2]


def run(*words: str, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "quire.compat.vllm", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=os.environ | {"QUIRE_LOG_LEVEL": "error"} | environment,
    )


def program(folder: Path, text: str, *words: str, **environment: str) -> str:
    """What a program prints; it must end well."""
    path = folder / "program.py"
    path.write_text(textwrap.dedent(text))
    done = run(str(path), *words, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_offline_generation_with_a_command_line(tmp_path: Path) -> None:
    printed = program(
        tmp_path,
        """
        from dataclasses import asdict

        import vllm
        from vllm import LLM, EngineArgs, RequestOutput, SamplingParams
        from vllm.utils.argparse_utils import FlexibleArgumentParser


        def create_parser():
            parser = FlexibleArgumentParser()
            EngineArgs.add_cli_args(parser)
            parser.set_defaults(max_model_len=128)
            group = parser.add_argument_group("Sampling")
            group.add_argument("--max-tokens", type=int)
            group.add_argument("--temperature", type=float)
            group.add_argument("--top_p", type=float)
            return parser


        def main(args):
            wanted = {key: args.pop(key) for key in ("max_tokens", "temperature", "top_p")}
            llm = LLM(**args)
            params = llm.get_default_sampling_params()
            for key, value in wanted.items():
                if value is not None:
                    setattr(params, key, value)
            outputs = llm.generate(["The capital of France is", "Hello"], params)
            for output in outputs:
                assert isinstance(output, RequestOutput) and output.finished
            print(repr(outputs[0].outputs[0].text), llm.llm_engine.inputs.max_model_len)
            again = EngineArgs(**asdict(EngineArgs(max_model_len=99)))
            print(again.max_model_len, vllm.__version__.split("+")[0])


        if __name__ == "__main__":
            main(vars(create_parser().parse_args()))
        """,
        *("--max_tokens=8", "--temperature", "0", "--enforce-eager"),
        *("--compilation-config.mode", "3", "--swap-space", "4"),
    )
    assert printed.splitlines() == ["' Paris.' 128", "99 0.31.0"]


@pytest.mark.slow
def test_chat_with_sampling_and_logprobs(tmp_path: Path) -> None:
    printed = program(
        tmp_path,
        """
        from vllm import LLM, SamplingParams
        from vllm.distributed import cleanup_dist_env_and_memory
        from vllm.logger import init_logger
        from vllm.logprobs import Logprob
        from vllm.platforms import current_platform

        logger = init_logger(__name__)
        llm = LLM(model="", max_model_len=256, gpu_memory_utilization=0.5, dtype="auto")
        conversation = [
            {"role": "system", "content": "You answer briefly."},
            {"role": "user", "content": "What is the capital of France?"},
        ]
        params = SamplingParams(temperature=0.0, max_tokens=16, logprobs=2)
        one = llm.chat(conversation, params, use_tqdm=False)
        two = llm.chat([conversation, conversation[1:]], params, use_tqdm=False)
        assert len(two) == 2 and two[0].outputs[0].text == one[0].outputs[0].text
        first = one[0].outputs[0].logprobs[0]
        assert all(isinstance(entry, Logprob) for entry in first.values())
        print(one[0].outputs[0].text, one[0].outputs[0].finish_reason)
        assert current_platform.is_cpu() or current_platform.is_cuda()
        del llm
        cleanup_dist_env_and_memory()
        """,
    )
    assert "Paris" in printed and "stop" in printed


@pytest.mark.slow
def test_beam_search(tmp_path: Path) -> None:
    printed = program(
        tmp_path,
        """
        from vllm import LLM
        from vllm.beam_search import BeamSearchOutput
        from vllm.inputs import TextPrompt, TokensPrompt
        from vllm.sampling_params import BeamSearchParams

        llm = LLM(max_model_len=128)
        ids = llm.get_tokenizer().encode("The capital of France is")
        found = llm.beam_search(
            [TextPrompt(prompt="The capital of France is"), TokensPrompt(prompt_token_ids=ids)],
            BeamSearchParams(beam_width=3, max_tokens=5),
        )
        assert all(isinstance(one, BeamSearchOutput) for one in found)
        assert [s.tokens for s in found[0].sequences] == [s.tokens for s in found[1].sequences]
        print(len(found[0].sequences), found[0].sequences[0].text)
        """,
    )
    assert printed.startswith("3 ") and "Paris" in printed


@pytest.mark.slow
def test_the_async_engine_and_the_engine_that_is_stepped(tmp_path: Path) -> None:
    printed = program(
        tmp_path,
        """
        import asyncio

        from vllm import EngineArgs, LLMEngine, SamplingParams
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.sampling_params import RequestOutputKind
        from vllm.usage.usage_lib import UsageContext
        from vllm.utils import FlexibleArgumentParser, random_uuid
        from vllm.v1.engine.async_llm import AsyncLLM
        from vllm.v1.metrics.loggers import StatLoggerBase

        class Count(StatLoggerBase):
            tokens = 0

            def __init__(self, vllm_config, engine_index=0):
                assert vllm_config.model_config.max_model_len == 128

            def record(self, scheduler_stats, iteration_stats, mm_cache_stats=None, engine_idx=0):
                Count.tokens += iteration_stats.num_generation_tokens

            def log_engine_initialized(self):
                pass

        async def stream(engine, prompt):
            params = SamplingParams(temperature=0, max_tokens=6, output_kind=RequestOutputKind.DELTA)
            pieces = [
                output.outputs[0].text
                async for output in engine.generate(prompt, params, request_id=random_uuid())
            ]
            return "".join(pieces)

        async def run_async():
            args = AsyncEngineArgs(model="", max_model_len=128, enforce_eager=True)
            engine = AsyncLLM.from_engine_args(
                args, usage_context=UsageContext.ENGINE_CONTEXT, stat_loggers=[Count]
            )
            try:
                texts = await asyncio.gather(*(stream(engine, "The capital of France is") for _ in "ab"))
                print(texts[0] == texts[1], texts[0], Count.tokens > 3)
            finally:
                engine.shutdown()

        def run_stepped():
            parser = EngineArgs.add_cli_args(FlexibleArgumentParser())
            args = parser.parse_args(["--max-model-len", "128"])
            engine = LLMEngine.from_engine_args(EngineArgs.from_cli_args(args))
            engine.add_request("0", "The capital of France is", SamplingParams(temperature=0, max_tokens=6))
            while engine.has_unfinished_requests():
                for output in engine.step():
                    if output.finished:
                        print(output.request_id, output.outputs[0].text)

        if __name__ == "__main__":
            asyncio.run(run_async())
            run_stepped()
        """,
    )
    assert printed.splitlines() == ["True  Paris. True", "0  Paris."]


def test_structured_outputs(tmp_path: Path) -> None:
    printed = program(
        tmp_path,
        """
        from vllm import LLM, SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        llm = LLM(max_model_len=256)
        choice = StructuredOutputsParams(choice=["Positive", "Negative"])
        regex = StructuredOutputsParams(regex=r"[a-z]{3}@example\\.com")
        for constraint in (choice, regex):
            params = SamplingParams(structured_outputs=constraint, max_tokens=40, seed=1)
            print(llm.generate("Say", params, use_tqdm=False)[0].outputs[0].text)
        """,
    )
    first, second = printed.splitlines()
    assert first in ("Positive", "Negative") and second.endswith("@example.com")


def test_a_custom_logits_processor_of_the_program_itself(tmp_path: Path) -> None:
    printed = program(
        tmp_path,
        """
        import torch
        from vllm import LLM, SamplingParams
        from vllm.config import VllmConfig
        from vllm.v1.sample.logits_processor import (
            AdapterLogitsProcessor,
            BatchUpdate,
            LogitsProcessor,
            RequestLogitsProcessor,
        )
        from vllm.v1.sample.logits_processor.interface import MoveDirectionality

        class OneToken:
            def __init__(self, wanted):
                self.wanted = wanted

            def __call__(self, output_ids, logits):
                kept = logits[self.wanted].item()
                logits[:] = float("-inf")
                logits[self.wanted] = kept
                return logits

        class Wrapped(AdapterLogitsProcessor):
            def is_argmax_invariant(self) -> bool:
                return False

            def new_req_logits_processor(self, params: SamplingParams) -> RequestLogitsProcessor | None:
                wanted = params.extra_args and params.extra_args.get("wanted")
                return None if wanted is None else OneToken(wanted)

        llm = LLM(max_model_len=128, logits_processors=[Wrapped])
        asked = [
            SamplingParams(temperature=0.0, max_tokens=4, ignore_eos=True, extra_args={"wanted": 77}),
            SamplingParams(temperature=0.0, max_tokens=4, ignore_eos=True),
        ]
        for output in llm.generate(["Hello"] * 2, asked, use_tqdm=False):
            print(output.outputs[0].token_ids == [77] * 4)
        """,
    )
    assert printed.splitlines() == ["True", "False"]


@pytest.mark.slow
def test_prompt_embeddings(tmp_path: Path) -> None:
    printed = program(
        tmp_path,
        f"""
        import torch
        import transformers
        from vllm import LLM, SamplingParams

        folder = {str(ROOT / "quire/models/demo")!r}
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        ids = tokenizer.encode("The capital of France is", return_tensors="pt")
        with torch.no_grad():
            embeds = model.get_input_embeddings()(ids).squeeze(0)
        llm = LLM(model=folder, enable_prompt_embeds=True, max_model_len=128)
        outputs = llm.generate({{"prompt_embeds": embeds}}, SamplingParams(temperature=0, max_tokens=6))
        print(outputs[0].outputs[0].text)
        """,
    )
    assert printed.strip() == "Paris."


def test_processes_that_a_program_starts_see_it_too(tmp_path: Path) -> None:
    printed = program(
        tmp_path,
        """
        import multiprocessing, subprocess, sys

        from vllm import SamplingParams

        def child(out):
            import vllm
            out.put((vllm.SamplingParams.__module__, SamplingParams(max_tokens=3).max_tokens))

        if __name__ == "__main__":
            context = multiprocessing.get_context("spawn")
            out = context.Queue()
            process = context.Process(target=child, args=(out,))
            process.start()
            print(out.get(timeout=60))
            process.join()
            code = "from vllm.sampling_params import SamplingParams; print(SamplingParams.__module__)"
            print(subprocess.check_output([sys.executable, "-c", code], text=True).strip())
        """,
    )
    assert printed.splitlines() == ["('quire.protocol.params', 3)", "quire.protocol.params"]


@pytest.mark.slow
def test_an_engine_of_its_own_process_loads_what_stands_beside_the_program(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        textwrap.dedent(
            """
            import torch
            from vllm.v1.sample.logits_processor import LogitsProcessor

            class Always(LogitsProcessor):
                def __init__(self, vllm_config, device, is_pin_memory):
                    assert vllm_config.scheduler_config.max_num_seqs

                def is_argmax_invariant(self):
                    return False

                def update_state(self, batch_update):
                    pass

                def apply(self, logits):
                    chosen = torch.full_like(logits, float("-inf"))
                    chosen[:, 77] = 0.0
                    return chosen
            """
        )
    )
    printed = program(
        tmp_path,
        """
        from mine import Always
        from vllm import LLM, SamplingParams
        from vllm.v1.sample.logits_processor import LogitsProcessor

        class Here(Always):
            pass

        if __name__ == "__main__":
            llm = LLM(max_model_len=64, logits_processors=[Always])
            print(llm.generate("Hi", SamplingParams(max_tokens=3), use_tqdm=False)[0].outputs[0].token_ids)
            try:
                LLM(max_model_len=64, logits_processors=[Here])
            except ValueError as error:
                print(error)
        """,
        VLLM_ENABLE_V1_MULTIPROCESSING="1",
    )
    first, second = printed.splitlines()
    assert first == "[77, 77, 77]"
    assert "module of its own" in second


def test_parsers_are_registered_as_with_vllm(tmp_path: Path) -> None:
    plugin = tmp_path / "parser.py"
    plugin.write_text(
        textwrap.dedent(
            """
            import json

            from vllm.entrypoints.openai.engine.protocol import (
                DeltaMessage,
                ExtractedToolCallInformation,
                FunctionCall,
                ToolCall,
            )
            from vllm.tool_parsers.abstract_tool_parser import ToolParser, ToolParserManager

            @ToolParserManager.register_module(["mine"])
            class Mine(ToolParser):
                def extract_tool_calls(self, model_output, request):
                    return ExtractedToolCallInformation(tools_called=False, tool_calls=[], content=model_output)

                def extract_tool_calls_streaming(self, *texts_and_ids):
                    return DeltaMessage(content=texts_and_ids[2])
            """
        )
    )
    printed = program(
        tmp_path,
        f"""
        from vllm.tool_parsers import ToolParserManager

        ToolParserManager.import_tool_parser({str(plugin)!r})
        print(ToolParserManager.get_tool_parser("mine").__name__)
        """,
    )
    assert printed.strip() == "Mine"


def test_names_that_are_not_there_say_so(tmp_path: Path) -> None:
    printed = program(
        tmp_path,
        """
        import vllm

        for line in (
            "from vllm import KVTransferConfig",
            "from vllm import SamplingParam",
            "from vllm.lora.request import LoRARequest",
            "import vllm.multimodal.utils",
            "from vllm.model_executor.layers.linear import LinearBase",
            "from vllm.sampling_params import GuidedDecodingParams",
            "import vllm.nothing_at_all",
        ):
            try:
                exec(line)
            except ImportError as error:
                print(error)
        print(hasattr(vllm, "nothing"), getattr(vllm, "LLM").__name__, "LLM" in dir(vllm))
        try:
            vllm.nothing
        except AttributeError as error:
            print(error)
        llm = vllm.LLM(max_model_len=64)
        for method in (llm.embed, llm.encode, llm.classify, llm.reward):
            try:
                method(["x"])
            except ValueError as error:
                print(error)
        """,
    )
    lines = printed.splitlines()
    assert "cache blocks stay on their device" in lines[0]
    assert "SamplingParam" in lines[1] and "did you mean SamplingParams?" in lines[1]
    assert "adapters are not served" in lines[2] and "not served" in lines[3]
    assert "vllm.model_executor.layers" in lines[4] and "inside" in lines[4]
    assert "structured_outputs" in lines[5] and "vllm.nothing_at_all" in lines[6]
    assert lines[7] == "False LLM True" and "Quire has no vllm.nothing" in lines[8]
    assert len(lines) == 13 and all("--runner pooling" in line for line in lines[9:])


def test_an_error_of_the_program_is_its_own(tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text("import sys\nprint(sys.argv[1:], __name__)\nsys.exit(7)\n")
    done = run(str(path), "-x", "--y=1")
    assert (done.returncode, done.stdout) == (7, "['-x', '--y=1'] __main__\n")
    assert run(str(tmp_path / "not_there.py")).returncode == 2
    assert run().returncode == 2 and "usage" in run("--help").stdout


@pytest.mark.slow
def test_modules_are_run_as_commands() -> None:
    done = run("-m", "vllm.entrypoints.openai.api_server", "--help")
    assert (
        done.returncode == 0
        and "--max-model-len"
        in done.stdout + run("-m", "vllm.entrypoints.openai.api_server", "--help=all").stdout
    )
    wrong = run("-m", "vllm.entrypoints.openai.api_server", "--no-such-flag")
    assert wrong.returncode == 2 and "--no-such-flag" in wrong.stderr
    old = run("-m", "vllm.entrypoints.openai.api_server_benchmark", "--help").stdout
    assert "quire bench serve" in old and "--request-rate" in old
    assert run("-m", "vllm.collect_env").stdout.startswith("System")
    assert run("-m", "vllm.entrypoints.cli.main", "--version").stdout.strip() == quire.__version__


def test_every_name_of_the_tables_is_there() -> None:
    for name, source in names.SOURCES.items():
        module, _, other = source.partition(":")
        assert hasattr(importlib.import_module(module), other or name), (name, source)
    for module, shown in names.MODULES.items():
        parent = module.rpartition(".")[0]
        assert not parent or parent in names.MODULES, f"{module} has no parent"
        assert set(shown.split()) <= set(names.SOURCES), module
    commands = importlib.import_module("quire.compat.vllm.commands")
    assert all(callable(getattr(commands, one)) for one in names.PROGRAMS.values())
    used = {name for shown in names.MODULES.values() for name in shown.split()}
    assert set(names.SOURCES) == used


def test_importing_it_is_light_and_nothing_else_knows_it() -> None:
    code = (
        "import sys; from quire.compat.vllm.modules import present; present(); import vllm; "
        "vllm.SamplingParams; print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
    for path in (ROOT / "quire").rglob("*.py"):
        if "compat" not in path.parts:
            for node in ast.walk(ast.parse(path.read_text())):
                named = (
                    [one.name for one in getattr(node, "names", [])]
                    if isinstance(node, ast.Import)
                    else []
                )
                assert not any(one.split(".")[0] == "vllm" for one in named), path


@pytest.mark.slow
def test_the_demo_server(tmp_path: Path) -> None:
    import httpx

    from tests.e2e.served import served

    command = ("-m", "quire.compat.vllm", "-m", "vllm.entrypoints.api_server")
    with served(tmp_path, "--max-model-len", "128", command=command) as server:
        body = {"prompt": "The capital of France is", "temperature": 0, "max_tokens": 8}
        assert server.post(body, "/generate").json() == {
            "text": ["The capital of France is Paris."]
        }
        two = server.post(body | {"n": 2, "temperature": 1.0, "seed": 1}, "/generate").json()
        assert len(two["text"]) == 2
        lines = server.post(body | {"stream": True}, "/generate").text.splitlines()
        assert len(lines) > 1 and lines[-1] == '{"text": ["The capital of France is Paris."]}'
        for wrong, words in (
            ({"prompt": 5}, "prompt"),
            ({"prompt": "a", "foo": 1}, "foo"),
            ({"prompt": "a", "temperature": -1}, "temperature"),
            ({"prompt": "a", "n": 10_000}, "limit"),
            (
                {"prompt": "a", "stream": True, "min_tokens": 10_000, "max_tokens": None},
                "min_tokens",
            ),
        ):
            refused = server.post(wrong, "/generate")
            assert refused.status_code == 400, refused.text
            assert words in refused.json()["error"]["message"]
        assert httpx.get(f"{server.url}/health").status_code == 200


def test_a_layerwise_profile(tmp_path: Path) -> None:
    printed = program(
        tmp_path,
        """
        import csv
        import json

        from vllm import LLM, SamplingParams
        from vllm.profiler.layerwise_profile import layerwise_profile

        if __name__ == "__main__":
            try:
                with layerwise_profile():
                    pass
            except ValueError as error:
                print(error)
            llm = LLM(max_model_len=128)
            params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
            ask = lambda: llm.generate("Hello", params)[0].outputs[0].token_ids
            before = ask()
            with layerwise_profile(num_running_seqs=1) as profile:
                try:
                    with layerwise_profile():
                        pass
                except ValueError as error:
                    print(error)
                inside = ask()
            assert before == inside == ask()
            profile.results.print_model_table()
            profile.results.print_summary_table()
            profile.results.export_model_stats_table_csv("model.csv")
            profile.results.export_summary_stats_table_csv("summary.csv")
            stats = profile.results.convert_stats_to_dict()
            assert stats["metadata"] == {"num_running_seqs": 1}
            assert stats["model_stats"]["steps"] == 8
            assert list(stats["model_stats"]["layers"]) == ["0", "1", "2", "3", "4"]
            shares = [float(line["share"]) for line in csv.DictReader(open("summary.csv"))]
            assert abs(sum(shares) - 1.0) < 1e-6 and shares == sorted(shares, reverse=True)
            modules = list(csv.DictReader(open("model.csv")))
            assert len(modules) == len(stats["model_stats"]["modules"])
            assert json.dumps(stats)
        """.replace('"model.csv"', repr(str(tmp_path / "model.csv"))).replace(
            '"summary.csv"', repr(str(tmp_path / "summary.csv"))
        ),
    )
    assert "one engine in this process, and there are 0" in printed
    assert "a profile runs already" in printed
    assert ": paged_attention (" in printed and "AttentionLayer" in printed
