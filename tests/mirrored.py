"""A run's curves to one mirror, in a process of its own: `python mirrored.py mlflow|wandb PLACE`. Prints what was said, what it
connected to, and what the client itself reads back."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fmcore import mirrors

CALLS = []
RUN = mirrors.Mirrored("run-1", "pretrain", {"seed": 3, "recipe": "full", "refit": True}, {"code": "c0ffee", "data_hash": "abc"})


def listen(event, args):
    """Every connection that Python itself opens, but to a socket in the file system."""
    if event == "socket.getaddrinfo" or (event == "socket.connect" and isinstance(args[1], tuple)):
        CALLS.append(str(args[0] if event == "socket.getaddrinfo" else args[1]))


def main(kind, place):
    sys.addaudithook(listen)
    said = []
    mirror = mirrors.MLflow(place) if kind == "mlflow" else mirrors.WandB(Path(place))
    at_work = mirrors.Mirrors([mirror], RUN, say=said.append)
    for step in range(5):
        at_work.metric(step, {"loss": 1 / (step + 1), "accuracy": None})
    at_work.metric(2, {"late": 1.0})
    in_time = at_work.close("succeeded", {"accuracy": {"value": 0.9, "low": 0.8, "high": 1.0}}, wait_s=120)
    found = read_back(place) if kind == "mlflow" and not said else None
    print(json.dumps({"said": said, "in_time": in_time, "calls": CALLS, "found": found}))


def read_back(place):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{place}/mlflow.db")
    [run] = client.search_runs([client.get_experiment_by_name(mirrors.PROJECT).experiment_id])
    history = [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "loss")]
    return {"params": run.data.params, "metrics": run.data.metrics, "status": run.info.status, "name": run.info.run_name, "history": history,
            "tags": {name: value for name, value in run.data.tags.items() if not name.startswith("mlflow.")}}


if __name__ == "__main__":
    main(*sys.argv[1:])
