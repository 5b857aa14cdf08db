"""Chat templates that know tools, documents and thinking, written after formats that published models use.

Those for plain conversations are `chat_templates`; comparing what they become is `test_chat_tools`.
"""

from __future__ import annotations

# ruff: noqa: E501
QWEN = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{% endif %}
    {{- '# Tools\\n\\n<tools>' }}
    {%- for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{% endfor %}
    {{- '\\n</tools><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>assistant' }}
        {%- if message.reasoning_content %}{{- '\\n<think>\\n' + message.reasoning_content.strip('\\n') + '\\n</think>' }}{% endif %}
        {%- if message.content %}{{- '\\n' + message.content }}{% endif %}
        {%- for call in message.tool_calls or [] %}
            {%- if call.function %}{% set call = call.function %}{% endif %}
            {{- '\\n<tool_call>\\n{"name": "' + call.name + '", "arguments": ' }}
            {%- if call.arguments is string %}{{- call.arguments }}{% else %}{{- call.arguments | tojson }}{% endif %}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{% endif %}
        {{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}{% endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{% endif %}
{%- endif %}"""

LLAMA_31 = """\
{{- bos_token }}
{%- if not date_string is defined %}{% set date_string = '26 Jul 2024' %}{% endif %}
{%- if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] | trim %}{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}
{%- if tools is not none %}{{- 'Environment: ipython\\n' }}{% endif %}
{{- 'Today Date: ' + date_string + '\\n\\n' + system + '<|eot_id|>' }}
{%- if tools is not none %}
    {%- set first = messages[0]['content'] | trim %}{% set messages = messages[1:] %}
    {{- '<|start_header_id|>user<|end_header_id|>\\n\\nAnswer with a JSON call of one of these functions.\\n\\n' }}
    {%- for tool in tools %}{{- tool | tojson(indent=4) }}{{- '\\n\\n' }}{% endfor %}
    {{- first + '<|eot_id|>' }}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls | length == 1 %}{{- raise_exception('This model only supports single tool-calls at once!') }}{% endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
        {{- '{"name": "' + call.name + '", "parameters": ' }}{{- call.arguments | tojson }}{{- '}' + '<|eot_id|>' }}
    {%- elif message.role == 'tool' or message.role == 'ipython' %}
        {{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' }}
        {%- if message.content is mapping or message.content is iterable %}{{- message.content | tojson }}{% else %}{{- message.content }}{% endif %}
        {{- '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"""

MISTRAL_V3 = """\
{%- if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set system = messages[0]['content'] %}{% else %}{% set rest = messages %}{% endif %}
{%- set users = rest | selectattr('role', 'equalto', 'user') | list %}
{{- bos_token }}
{%- for message in rest %}
    {%- if message['role'] == 'user' %}
        {%- if tools is not none and message == users[-1] %}
            {{- '[AVAILABLE_TOOLS] [' }}
            {%- for tool in tools %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, value in tool.function.items() if key != 'return' %}
                    {%- if value is string %}{{- '"' + key + '": "' + value + '"' }}{% else %}{{- '"' + key + '": ' + value | tojson }}{% endif %}
                    {%- if not loop.last %}{{- ', ' }}{% endif %}
                {%- endfor %}
                {{- '}}' }}{% if not loop.last %}{{- ', ' }}{% endif %}
            {%- endfor %}
            {{- '][/AVAILABLE_TOOLS]' }}
        {%- endif %}
        {%- if loop.last and system is defined %}{{- '[INST] ' + system + '\\n\\n' + message['content'] + '[/INST]' }}{% else %}{{- '[INST] ' + message['content'] + '[/INST]' }}{% endif %}
    {%- elif message['role'] == 'tool' %}
        {{- '[TOOL_RESULTS] {"content": ' + message.content | string + ', "call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
    {%- elif message.tool_calls is defined %}
        {{- '[TOOL_CALLS] [' }}
        {%- for call in message.tool_calls %}
            {%- set text = call.function | tojson %}{{- text[:-1] }}
            {%- if call.id | length != 9 %}{{- raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}{% endif %}
            {{- ', "id": "' + call.id + '"}' }}{% if not loop.last %}{{- ', ' }}{% else %}{{- ']' + eos_token }}{% endif %}
        {%- endfor %}
    {%- else %}{{- ' ' + message['content'] | trim + eos_token }}
    {%- endif %}
{%- endfor %}"""

DEEPSEEK_V31 = """\
{% if not thinking is defined %}{% set thinking = false %}{% endif %}
{% set ns = namespace(system='', first=true, after_tool=false) %}
{%- for message in messages if message['role'] == 'system' %}{% if ns.first %}{% set ns.system = message['content'] %}{% set ns.first = false %}{% else %}{% set ns.system = ns.system + '\\n\\n' + message['content'] %}{% endif %}{% endfor %}
{%- if tools %}{% set shown = namespace(text='## Tools\\n') %}{% for tool in tools %}{% set shown.text = shown.text + '\\n### ' + tool.function.name + '\\n' + (tool.function.parameters | tojson) + '\\n' %}{% endfor %}{% set ns.system = ns.system + '\\n\\n' + shown.text %}{% endif %}
{{- bos_token }}{{ ns.system }}
{%- for message in messages %}
    {%- if message['role'] == 'user' %}{% set ns.after_tool = false %}{{- '<｜User｜>' + message['content'] }}{% endif %}
    {%- if message['role'] == 'assistant' and message['tool_calls'] is defined and message['tool_calls'] is not none %}
        {{- '<｜Assistant｜></think>' }}{% if message['content'] %}{{- message['content'] }}{% endif %}
        {{- '<｜tool▁calls▁begin｜>' }}
        {%- for tool in message['tool_calls'] %}{{- '<｜tool▁call▁begin｜>' + tool['function']['name'] + '<｜tool▁sep｜>' + tool['function']['arguments'] | tojson + '<｜tool▁call▁end｜>' }}{% endfor %}
        {{- '<｜tool▁calls▁end｜><｜end▁of▁sentence｜>' }}
    {%- elif message['role'] == 'assistant' %}{{- ('' if ns.after_tool else '<｜Assistant｜></think>') + message['content'] + '<｜end▁of▁sentence｜>' }}
    {%- endif %}
    {%- if message['role'] == 'tool' %}{% set ns.after_tool = true %}{{- '<｜tool▁output▁begin｜>' + message['content'] + '<｜tool▁output▁end｜>' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt and not ns.after_tool %}{{- '<｜Assistant｜>' + ('<think>' if thinking else '</think>') }}{% endif %}"""

GLM_45 = """\
[gMASK]<sop>
{%- if tools %}
{{- '<|system|>\\n# Tools\\n\\n<tools>\\n' }}{% for tool in tools %}{{ tool | tojson(ensure_ascii=False) }}{{ '\\n' }}{% endfor %}{{- '</tools>' }}
{%- endif %}
{%- macro visible(content) %}{% if content is string %}{{- content }}{% elif content is iterable and content is not mapping %}{% for item in content %}{% if item is mapping and item.type == 'text' %}{{- item.text }}{% elif item is string %}{{- item }}{% endif %}{% endfor %}{% else %}{{- content }}{% endif %}{% endmacro %}
{%- set ns = namespace(last=-1) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}
{%- if m.role == 'user' %}{{- '<|user|>\\n' }}{{ visible(m.content) }}{{- '/nothink' if (enable_thinking is defined and not enable_thinking and not visible(m.content).endswith('/nothink')) else '' }}
{%- elif m.role == 'assistant' %}{{- '<|assistant|>' }}
{%- if m.reasoning_content is string and loop.index0 > ns.last %}{{- '\\n<think>' + m.reasoning_content.strip() + '</think>' }}{% else %}{{- '\\n<think></think>' }}{% endif %}
{%- if m.content %}{{- '\\n' + visible(m.content).strip() }}{% endif %}
{%- for tc in m.tool_calls or [] %}{% set tc = tc.function if tc.function else tc %}
{{- '\\n<tool_call>' + tc.name }}
{%- for k, v in tc.arguments.items() %}{{- '\\n<arg_key>' + k + '</arg_key>\\n<arg_value>' }}{{- v | tojson(ensure_ascii=False) if v is not string else v }}{{- '</arg_value>' }}{% endfor %}
{{- '\\n</tool_call>' }}{% endfor %}
{%- elif m.role == 'tool' %}{% if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{- '<|observation|>' }}{% endif %}{{- '\\n<tool_response>\\n' + m.content + '\\n</tool_response>' }}
{%- elif m.role == 'system' %}{{- '<|system|>\\n' + visible(m.content) }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>' }}{{- '\\n<think></think>' if (enable_thinking is defined and not enable_thinking) else '' }}{% endif %}"""

PHI_4_MINI = """\
{% for message in messages %}{% if message['role'] == 'system' and tools is not none %}{{ '<|system|>' + message['content'] + '<|tool|>' + (tools | tojson) + '<|/tool|><|end|>' }}{% elif message.tool_calls %}{{ '<|assistant|>' + (message.content or '') + '<|tool_call|>' + (message.tool_calls | map(attribute='function') | list | tojson) + '<|/tool_call|><|end|>' }}{% else %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"""

GRANITE_DOCUMENTS = """\
{%- if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set rest = messages[1:] %}{% else %}{% set system = 'You are a helper.' %}{% set rest = messages %}{% endif %}
{{- '<|start_of_role|>system<|end_of_role|>' + system + '<|end_of_text|>\\n' }}
{%- if tools %}{{- '<|start_of_role|>available_tools<|end_of_role|>' }}{{- tools | tojson(indent=4) }}{{- '<|end_of_text|>\\n' }}{% endif %}
{%- if documents %}{% for document in documents %}{{- '<|start_of_role|>document {"document_id": "' + document['doc_id'] | string + '"}<|end_of_role|>\\n' + document['text'] + '<|end_of_text|>\\n' }}{% endfor %}{% endif %}
{%- for message in rest %}
{{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' + (message['content'] or '') }}{% if message.tool_calls %}{{- '<|tool_call|>' + (message.tool_calls | tojson) }}{% endif %}{{- '<|end_of_text|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}"""

GEMMA_3 = """\
{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}{%- set prefix = messages[0]['content'] + '\\n\\n' -%}{%- else -%}{%- set prefix = messages[0]['content'][0]['text'] + '\\n\\n' -%}{%- endif -%}
    {%- set rest = messages[1:] -%}
{%- else -%}{%- set prefix = '' -%}{%- set rest = messages -%}{%- endif -%}
{%- for message in rest -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{%- endif -%}
    {{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\\n' + (prefix if loop.first else '') }}
    {%- if message['content'] is string -%}{{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}{%- for item in message['content'] -%}{%- if item['type'] == 'image' -%}{{ '<start_of_image>' }}{%- elif item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}{%- endfor -%}
    {%- else -%}{{ raise_exception('Invalid content type') }}{%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\\n' }}{%- endif -%}
"""

TEXT_ARGUMENTS = """\
{%- for message in messages %}{{- '<｜' + message.role + '｜>' + (message.content or '') }}
{%- for tool in message.tool_calls or [] %}{{- tool['type'] + '<｜tool▁sep｜>' + tool['function']['name'] + '\\n' + '```json' + '\\n' + tool['function']['arguments'] + '\\n' + '```' }}{{ '|' ~ tool.function.arguments }}{{ tool.function.arguments }}{% endfor %}
{%- endfor %}"""
"""Of the kind that takes the text of arguments, as a client sends it."""

TEMPLATES = {
    "qwen": QWEN, "llama-3.1": LLAMA_31, "mistral-v3": MISTRAL_V3, "deepseek-v3.1": DEEPSEEK_V31,
    "glm-4.5": GLM_45, "phi-4-mini": PHI_4_MINI, "granite": GRANITE_DOCUMENTS, "gemma-3": GEMMA_3,
}  # fmt: skip

NO_TOOLS = {"gemma-3"}
