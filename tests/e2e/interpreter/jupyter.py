"""Runs cells in Jupyter's own kernel and says what came, as JSON: one list of messages for each."""

import json
import sys

from jupyter_client.manager import start_new_kernel

cells = json.load(open(sys.argv[1]))
manager, client = start_new_kernel(kernel_name="python3", cwd="/workspace")
answers = []
for code in cells:
    answer = {"stdout": "", "stderr": "", "results": [], "error": None}

    def hear(message):
        kind, content = message["msg_type"], message["content"]
        if kind == "stream":
            answer[content["name"]] += content["text"]
        elif kind in ("execute_result", "display_data"):
            answer["results"].append({"main": kind == "execute_result", "data": content["data"]})
        elif kind == "error":
            answer["error"] = {key: content[key] for key in ("ename", "evalue", "traceback")}

    reply = client.execute_interactive(code, allow_stdin=False, stop_on_error=False, timeout=120, output_hook=hear)
    answer["count"] = reply["content"].get("execution_count")
    answers.append(answer)
client.stop_channels()
manager.shutdown_kernel(now=True)
json.dump(answers, open(sys.argv[2], "w"))
