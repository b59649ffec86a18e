"""MLflow: the store, runs, registry and the model as pyfunc.

Importing the room sets what MLflow reads from the environment at its own import, so that no module
below has to care about the order. Whatever the user has set wins.
"""

import os

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # Otherwise a pyproject.toml or uv.lock of the current directory is copied into every model.
    "MLFLOW_UV_AUTO_DETECT": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}

for _name, _value in _QUIET.items():
    os.environ.setdefault(_name, _value)
