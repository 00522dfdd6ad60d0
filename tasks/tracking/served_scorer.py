"""A registered scorer as MLflow serves it. MLflow keeps a copy of this file beside the scorer's two files, so it is short: code, no pickle.

autosparse must be installed where it is loaded; the scores and the cut are those of `autosparse.prune`.
"""

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from autosparse.library.scorer import scorer_of_files
from autosparse.library.weight_table import score_table
from autosparse.models.errors import AutosparseError


class ServedScorer(PythonModel):
    """Rows of a weight table -> `score` and `keep` (0 or 1) of each."""

    def load_context(self, context: Any) -> None:
        """Read card and tensors."""
        card, weights = (Path(context.artifacts[name]).read_bytes() for name in ("card", "weights"))
        self.scorer = scorer_of_files(card, weights, "the served scorer")

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """One row per weight, in the order of the input."""
        try:
            return pd.DataFrame(score_table(self.scorer, {name: model_input[name].tolist() for name in model_input}, **(params or {})))
        except AutosparseError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None


set_model(ServedScorer())
