"""Sums over all workers of a training, by ``tf.distribute.MultiWorkerMirroredStrategy``.

Every worker holds the whole network as plain variables and takes its share of each batch; sums of the gradients make
all networks change alike. So whatever is read or written outside of a sum (checkpoints, validation) concerns one worker
alone, and nothing of a run depends on how many workers there are but the order in which numbers are added.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from edge_ran.errors import EnvironmentMissing
from edge_ran.printable import one_line
from edge_ran.workers import TF_CONFIG, Workers, meet

PATIENCE_S = 60.0
# What TensorFlow raises where a connection ends; other errors, such as a full memory, are this worker's own.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.InternalError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,  # it has begun again
)


class Crew:
    """All workers, seen from one of them."""

    def __init__(self, workers: Workers, identity: str, patience_s: float = PATIENCE_S, precision: str = "") -> None:
        """Meet the others, and connect with them.

        Args:
            identity: equal for equal data, settings and network.
            precision: of this worker; that of the first one, which knows the run, becomes that of all.

        Raises:
            EnvironmentMissing: a worker does not answer or cannot be connected with.
            UsageError: a worker is about to train something else.
        """
        self.precision = meet(workers, identity, patience_s, precision) or precision  # an older one tells nothing
        self.workers = workers
        task = {"type": "worker", "index": workers.index}
        before = os.environ.get(TF_CONFIG)
        os.environ[TF_CONFIG] = json.dumps({"cluster": {"worker": list(workers.addresses)}, "task": task})
        try:
            self._strategy = tf.distribute.MultiWorkerMirroredStrategy()
        except (tf.errors.OpError, RuntimeError) as error:
            raise EnvironmentMissing(
                f"worker {workers.index} cannot connect with the others: {one_line(str(error))[:200]}",
                "start all workers again, each in a process that has not used TensorFlow before",
            ) from error
        finally:
            del os.environ[TF_CONFIG]
            if before is not None:
                os.environ[TF_CONFIG] = before

    @property
    def is_first(self) -> bool:
        return self.workers.is_first

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        """Turn the end of a connection into one line."""
        try:
            yield
        except _LOST as error:
            others = [a for i, a in enumerate(self.workers.addresses) if i != self.workers.index]
            raise EnvironmentMissing(
                f"worker {self.workers.index} lost another worker ({', '.join(others)})",
                "start all workers again with --resume; another number of them will do, too",
            ) from error

    def summed(self, compute: Callable[[], Sequence[tf.Tensor]]) -> list[tf.Tensor]:
        """Return the sums over all workers of what ``compute`` returns in each; to be called in a ``tf.function``."""

        def replica() -> list[tf.Tensor]:
            context = tf.distribute.get_replica_context()
            # A copy lies on this replica's device; what comes from outside has none, which the sum refuses.
            values = [tf.identity(value) for value in compute()]
            return list(context.all_reduce(tf.distribute.ReduceOp.SUM, values))

        return [self._strategy.experimental_local_results(total)[0] for total in self._strategy.run(replica)]

    def from_first(self, values: Sequence[Any]) -> list[np.ndarray]:
        """Return worker 0's values, arrays or numbers of equal shapes in all workers, in float64."""
        arrays = [np.asarray(v, np.float64) if self.is_first else np.zeros(np.shape(v)) for v in values]
        with self.connected():
            return [total.numpy() for total in self._sum(*map(tf.constant, arrays))]

    @tf.function(reduce_retracing=False, autograph=False)
    def _sum(self, *values: tf.Tensor) -> list[tf.Tensor]:
        return self.summed(lambda: values)


def synchronised(model: tf_keras.Model) -> tf_keras.Model:
    """Return the network with the same weights, whose BatchNormalization takes the statistics of all workers.

    Its moving variance is that of n values divided by n, where one process divides by n - 1.
    """

    def again(layer: tf_keras.layers.Layer) -> tf_keras.layers.Layer:
        config = layer.get_config()
        if isinstance(layer, tf_keras.layers.BatchNormalization):
            config["synchronized"] = True
        return type(layer).from_config(config)

    copy = tf_keras.models.clone_model(model, clone_function=again)
    copy.set_weights(model.get_weights())
    return copy
