"""The trainer: all epochs of a recipe, with a run folder to go back to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import asdict, replace
from fractions import Fraction
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.data import DataSet, Samples, Subset
from dsr.data.identity import fingerprint
from dsr.data.samples import Numbers
from dsr.files import checkpoint
from dsr.files.lock import FolderInUseError, FolderLock
from dsr.files.progress import progress
from dsr.nn.network import Network, spike_rates
from dsr.ops import Values
from dsr.ops.arguments import as_number
from dsr.optim.average import WeightAverage
from dsr.optim.optimizers import Optimizer, clip_gradients, gradient_norm
from dsr.train import image_sizes, own_runs, run_folder, starting, tensorboard
from dsr.train.build import (
    Augment,
    Build,
    MakeOptimizer,
    build_network,
    learning_rate,
    make_augment,
    make_callbacks,
    make_loss,
    make_mixing,
    make_optimizer,
)
from dsr.train.calibration import calibrate
from dsr.train.callbacks import Callback
from dsr.train.distributed import ALONE, Group, align
from dsr.train.interrupt import Interrupted, Interrupts
from dsr.train.metrics import Loss, beside, metric_of
from dsr.train.parts import Parts
from dsr.train.position import Position
from dsr.train.recipe import Recipe
from dsr.train.resuming import metrics_until, require_same
from dsr.train.steps import changed_by_passes, compute_gradients, measure_all
from dsr.train.teacher import Teacher
from dsr.train.training_batches import TrainingBatches


class Trainer:
    """Trains a network and keeps a run folder.

    Checkpoints are written after each epoch, every `save_every` seconds, and when a signal asks to stop (Ctrl-C, and
    those of `dsr.train.interrupt`); the interrupted step is then as if it had not begun. A run that is resumed from any
    of them gives the same bits as one that was never stopped. While it is fitted, no other process can write to the
    folder (`dsr.files.lock`).

    Parameters
    ----------
    run : Recipe or Network
        A recipe: the network and all settings of the training. What it refers to of your own code is run. Or a network
        that is to be trained, with the settings as keywords.
    samples : DataSet
        The data to train on and to measure with.
    folder : path, optional
        Where checkpoints and metrics go; made if it does not exist. A new run replaces one that is there already. None:
        nothing is written.
    say : callable
        Called with each line of text for people, such as the metrics of an epoch.
    save_every : float
        Seconds between checkpoints within an epoch.
    data_path : path, optional
        Where the samples are from, noted in checkpoints.
    build : callable, optional
        With a recipe: makes the layers of a network of your own instead of the recipe's model, always the same:
        ``build(make_neuron, features, classes, **model_options)``.
    group : Group
        The ranks that train together, each with a Trainer made with the same arguments but for `group`. Rank 0 prints
        and writes files; the others read its checkpoint when they resume.
    lock : FolderLock, optional
        One of `folder` that this process holds already; by default `fit` takes one.
    loss : callable, optional
        ``loss(rates, targets)`` gives its mean over the batch, and the gradient with respect to the rates.
    optimizer : Optimizer or callable, optional
        An optimiser of the network's parameters, or what makes one of them: ``dsr.Adam``, or
        ``lambda parameters: dsr.SGD(parameters, 0.1)``.
    schedule : callable, optional
        ``schedule(epoch, step)`` gives the learning rate of a step: `epoch` is the exact position (Fraction, epochs
        done and the part of the one under way), `step` the steps done. Default: as in the recipe.
    augment : callable, optional
        ``augment(batch, draws)`` gives the training batch, changed by `draws`, (B, 8) in [0, 1), a row a sample.
    callbacks : sequence of Callback
        Called after steps and epochs, besides those of the recipe.
    **settings
        With a network: keys of a recipe, such as ``epochs=20, batch_size=64, learning_rate=0.05``.

    Raises
    ------
    TypeError, ValueError
        The recipe does not fit the samples, an argument is of another kind, or `save_every` is not a number >= 0.

    Examples
    --------
    >>> trainer = dsr.Trainer(net, digits, epochs=5, callbacks=[dsr.train.StopEarly(patience=2)])
    >>> trainer.fit()["test_accuracy"]
    0.97...

    Notes
    -----
    On several ranks a batch is shared among them. A last batch of an epoch with less than two samples for each rank is
    left out, as one of a single sample is on one. With `accumulate` the parts of a batch count as ranks do.

    A run with objects of your own (a loss, an optimiser, ...) is resumed by a Trainer with the same ones, whose names
    its checkpoint notes; with references in a recipe, also by ``dsr train --resume``.
    """

    def __init__(
        self,
        run: Recipe | Network,
        samples: DataSet,
        folder: str | Path | None = None,
        say: Callable[[str], object] = print,
        save_every: float = 300.0,
        data_path: str | Path | None = None,
        build: Build | None = None,
        group: Group = ALONE,
        lock: FolderLock | None = None,
        *,
        loss: Loss | None = None,
        optimizer: Optimizer | MakeOptimizer | None = None,
        schedule: Callable[[Fraction, int], float] | None = None,
        augment: Augment | None = None,
        callbacks: Sequence[Callback] = (),
        **settings: Any,
    ) -> None:
        own = {"loss": loss, "optimizer": optimizer, "schedule": schedule, "augment": augment}
        own = {name: value for name, value in own.items() if value is not None}
        self.recipe, network = own_runs.recipe_of(run, samples, own, build, settings)
        own_runs.require_task(self.recipe, samples)
        self.data, self.group = samples, group
        self.folder = None if folder is None else Path(folder)
        self.say: Callable[[str], object] = say if group.rank == 0 else str
        self.save_every = as_number("Trainer", "save_every", save_every, lambda seconds: seconds >= 0, "a number >= 0")
        self.data_path = None if data_path is None else str(Path(data_path).absolute())
        self.training, self.held_out = split(samples, self.recipe)
        self.schedule, self._own_build = schedule, build
        self.network = network or self._build()
        self._given = network is not None
        self.optimizer = make_optimizer(self.recipe, self.network, optimizer)
        self.loss = make_loss(self.recipe, loss)
        self.metric = metric_of(samples.task, self.loss)
        self.batches = TrainingBatches(
            self.recipe,
            self.training,
            make_augment(self.recipe, augment),
            make_mixing(self.recipe, tuple(samples.features), len(samples.classes), loss),
            group.size,
        )
        self.callbacks = make_callbacks(self.recipe, callbacks)
        self.own = own_runs.Own.of(self.recipe, self.network, own, build is not None or network is not None)
        decay = self.recipe.ema_decay
        self.teacher = Teacher.of(self.recipe, samples)
        networks = [self.network] if self.teacher is None else [self.network, self.teacher.network]
        image_sizes.require_fit(self.recipe, networks, self.training, samples.features)
        self.average = WeightAverage(self.network, deepcopy(self.network), decay) if decay else None
        self.position = Position()
        self._parts = Parts(self.network)
        self.metrics: list[dict[str, Any]] = []
        self.extended: list[dict[str, int]] = []
        self.stopped = ""
        self._saved = time.monotonic()
        self._lock = None if self.folder is None else lock or FolderLock(self.folder)
        self._found = None if self.folder is None else run_folder.version(self.folder)
        self._samples: dict[str, Any] = {}
        # a rank that stopped alone would leave the others waiting, so all stop after the same step
        self._interrupts = Interrupts(noted=group.size > 1)
        self._started = False
        self._scalars: tensorboard.Scalars | None = None

    def _build(self) -> Network:
        """A new network of the recipe."""
        return build_network(self.recipe, self.data.features, len(self.data.classes), self._own_build)

    @property
    def measured(self) -> Network:
        """The network that is evaluated: the one that is trained, or its average."""
        return self.network if self.average is None else self.average.average

    @property
    def best_by(self) -> str:
        """The entry of the metrics by which the best epoch is chosen, such as ``test_accuracy``."""
        return f"{run_folder.held_out(self.recipe)}_{self.metric.name}"

    def stop(self, reason: str) -> None:
        """End the run after the epoch that is under way; for callbacks. `fit` says the reason."""
        self.stopped = reason

    def resume(self) -> None:
        """Go back to where the folder's last checkpoint was written.

        A recipe that differs in its number of epochs only extends or shortens the run, which is said, with what becomes
        of the learning rate.

        Raises
        ------
        CheckpointError
            It is damaged, or of another recipe, or of other data: classes, shape, number or labels of the samples
            differ. (Where only the content of samples differs, that is said.)
        ValueError
            There is no folder; or more epochs are done than the recipe has.
        OSError
            There is no checkpoint.
        """
        if self.folder is None:
            raise ValueError("Trainer.resume: expected a trainer with a folder, got none")
        path = self.folder / run_folder.CHECKPOINT
        self._found = run_folder.version(self.folder)
        arrays, metadata = checkpoint.load(path)
        try:
            before = require_same(path, metadata, self.recipe, self.data, self._fingerprints(), self.say)
            self.own.require_same(path, metadata, self.say)
            self.network.load_state(run_folder.part(arrays, "network"))
            self.optimizer.load_state(run_folder.part(arrays, "optimizer"))
            if self.average is not None:
                self.average.average.load_state(run_folder.part(arrays, "average"))
            self.position = Position(**metadata["position"])
            self.extended = list(metadata.get("extended", []))
            self.metrics = metrics_until(self.folder, self.position.epoch, metadata.get("metrics"), self.say)
        except checkpoint.CheckpointError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise checkpoint.CheckpointError(f"{path}: {error}") from None
        if before != self.recipe.epochs:
            self._extend(before)
        if (ranks := metadata.get("ranks", 1)) != self.group.size:
            self.say(f"{path} was written on {ranks} ranks: on {self.group.size} the run goes on with other bits")

    def _extend(self, before: int) -> None:
        """Note that the run gets another number of epochs, and say what that does to the learning rate."""
        position, epochs = self.position, self.recipe.epochs
        if epochs <= position.epoch:
            raise ValueError(
                f"recipe: key 'epochs': expected more than the {position.epoch} that are done, got {epochs}"
            )
        self.extended.append({"after_epoch": position.epoch, "from": before, "to": epochs})
        last = self.metrics[-1]["learning_rate"] if self.metrics else None
        ended = "" if last is None else f"; the last epoch ended with {last:.3g}"
        course = "its own schedule" if self.schedule else f"the schedule {self.recipe.schedule} over {epochs} epochs"
        now = self._learning_rate(0, position.step, max(position.steps_per_epoch, 1))
        self.say(f"epochs: {epochs} instead of {before}; from here on {course}, which goes on at {now:.3g}{ended}")

    def _fingerprints(self) -> dict[str, Any]:
        if not self._samples:
            split = run_folder.held_out(self.recipe)
            self._samples = {"training": fingerprint(self.training), split: fingerprint(self.held_out)}
        return self._samples

    def start_from(self, path: str | Path, strict: bool = True) -> None:
        """Take the weights of another network; `say` is told which.

        From a spiking network of the same kind of neurons: all arrays, with thresholds. From a ReLU network: its
        weights, and thresholds by its activations (hybrid training, `dsr.train.hybrid`).

        Parameters
        ----------
        path : path
            A run folder (its best checkpoint), or a file that `dsr.load_state` reads. None of its code is run.
        strict : bool
            Whether all arrays must be there and fit. If not, those that do are taken and the others keep their initial
            values, such as a new head for other classes.

        Raises
        ------
        ValueError
            The weights do not fit the network, or nothing of them does.
        OSError
            The file cannot be read.
        """
        batches = self.batches.of_epoch(self.position.epoch)[: self.recipe.start_batches]
        plan = ((part, None) for batch in batches for part in np.array_split(batch, self.recipe.accumulate))
        starting.start(self, Path(path), self._relu_twin, self.training.batches(plan), strict)
        if self.average is not None:
            self.average.average.load_state(self.network.state())
        self._started = True

    def _relu_twin(self) -> Network:
        if self._given:
            raise ValueError(
                "--from: a network that was given as an object has no ReLU twin: give a recipe and build=, which makes "
                "both of them"
            )
        twin = replace(self.recipe, neuron="relu", timesteps=1)
        return build_network(twin, self.data.features, len(self.data.classes), self._own_build)

    def fit(self) -> dict[str, Any]:
        """Train for all epochs that are left; the metrics of the last one.

        Raises
        ------
        Interrupted
            A signal asked to stop; the state is saved.
        FolderInUseError
            Another process writes to the folder, or did since this trainer was made or resumed.
        OSError
            The folder cannot be written to or has too little room, before the first step; or a checkpoint could not be
            written: then `fit` may be called again, and goes on with the same bits.
        FloatingPointError
            Loss or gradients are not finite; the message says where.
        MemoryError
            The step is as if it had not begun: `save` and `fit` may be called, and the run goes on with the same bits.
        """
        self.batches.require_enough()
        if self.position.epoch >= self.recipe.epochs:
            return self._last_metrics()
        self.stopped = ""
        with self._lock if self._lock is not None and self.group.rank == 0 else nullcontext():
            if self.folder is not None and self.group.rank == 0:
                self._require_folder(self.folder)
            self._prepare()
            with self._interrupts:
                try:
                    while self.position.epoch < self.recipe.epochs and not self.stopped:
                        self._epoch()
                except Interrupted as stop:
                    self.save()  # undisturbed: further signals are only noted
                    self.group.barrier()
                    raise Interrupted(stop.number, self._stopped()) from None
        if self.stopped:
            self.say(f"stopped after epoch {self.position.epoch} of {self.recipe.epochs}: {self.stopped}")
        return self._last_metrics()

    def _last_metrics(self) -> dict[str, Any]:
        return self.metrics[-1] if self.metrics else {}

    def _require_folder(self, folder: Path) -> None:
        """Raise unless the folder is as this trainer last saw it, and has room for what will be written."""
        if run_folder.version(folder) != self._found:
            raise FolderInUseError(
                f"{folder}: another run was written into it in the meantime; resume that one, or choose another folder"
            )
        run_folder.require_room(folder, self._bytes())
        self._fingerprints()  # for checkpoints: nothing is decoded when one has to be saved

    def _bytes(self) -> int:
        """About the size of a checkpoint: weights, their average, and what the optimiser keeps for each."""
        weights = sum(array.nbytes for _, array in self.network.arrays())
        return weights * (1 + self.optimizer.state_arrays + (self.average is not None))

    def _prepare(self) -> None:
        """What precedes the first step; all ranks get the arrays of rank 0."""
        if self.position.step == 0 and not self._started and self.group.rank == 0:
            calibrate(self.network, self.training, self.recipe.seed)
            if self.average is not None:
                self.average.average.load_state(self.network.state())
        self._parts = align(self.group, self.network, self.recipe.sync_batch_norm, self.recipe.accumulate)
        if self.average is not None:
            align(self.group, self.average.average, self.recipe.sync_batch_norm)

    def _stopped(self) -> str:
        """How far the run came, and the command that goes on with it."""
        epoch, batch = self.position.epoch, self.position.batch
        if epoch == self.recipe.epochs:
            return f"stopped after the last of {epoch} epochs, and saved: the run in {self.folder} is finished"
        if self.folder is None:
            return f"stopped in epoch {epoch + 1} after {batch} batches; fit() goes on"
        return (
            f"stopped in epoch {epoch + 1} after {batch} batches, and saved; "
            f"go on with: dsr train --resume {self.folder}"
        )

    def save(self, name: str = run_folder.CHECKPOINT) -> None:
        """Write a checkpoint into the run folder, on rank 0; without a folder, nothing."""
        if self.group.rank > 0 or self.folder is None:
            return
        arrays = {f"network.{key}": array for key, array in self.network.arrays()}
        arrays |= {f"optimizer.{key}": array for key, array in self.optimizer.state().items()}
        if self.average is not None:
            arrays |= {f"average.{key}": array for key, array in self.average.average.arrays()}
        checkpoint.save(
            self.folder / name,
            arrays,
            {
                "recipe": self.recipe.to_dict(),
                "features": list(self.data.features),
                "classes": list(self.data.classes),
                "task": self.data.task,
                "preprocessing": self.data.preprocessing and self.data.preprocessing.to_dict(),
                "best_chosen_on": run_folder.held_out(self.recipe),
                **self.own.metadata(),
                "samples": self._fingerprints(),
                "data_path": self.data_path,
                "position": asdict(self.position),
                "ranks": self.group.size,
                "metrics": self._last_metrics(),
                **({"extended": self.extended} if self.extended else {}),
            },
        )
        self._saved = time.monotonic()
        self._found = run_folder.version(self.folder)

    def _epoch(self) -> None:
        position = self.position
        batches = self.batches.of_epoch(position.epoch)
        if not position.steps_per_epoch:  # a new run; or one of an older version, all of whose epochs were alike
            done = position.step - position.batch
            position.steps_per_epoch = done // position.epoch if position.epoch else len(batches)
        left = batches[position.batch :]
        parts = [self._parts.split(batch, self.group.rank, self.group.size) for batch in left]
        images = self.batches.images(position.epoch, [part for step in parts for part in step])
        steps = zip(left, parts, strict=True)
        shown = (
            steps
            if self.group.rank
            else progress(
                steps,
                f"epoch {position.epoch + 1}/{self.recipe.epochs}",
                len(batches),
                position.batch,
                lambda: f"loss {position.loss / max(position.seen, 1):.4f}",
                self.say,
            )
        )
        for batch, step in shown:
            loss = self._step(zip(step, images, strict=False), len(batch), len(batches))
            for callback in self.callbacks:
                callback.after_step(self, loss)
            if time.monotonic() - self._saved > self.save_every:
                with self._interrupts.held():
                    self.save()
        next(images, None)  # its workers end before those of the measurement begin
        metrics = self._measure()
        with self._interrupts.held():
            self._finish(metrics)
        self.say(run_folder.describe(metrics, self.recipe, self.metric))
        for callback in self.callbacks:
            callback.after_epoch(self, metrics)

    def _step(
        self, parts: Iterable[tuple[Numbers, tuple[Values, NDArray[Any]]]], batch_size: int, steps_per_epoch: int
    ) -> float:
        """A step on the parts of a batch, which come one by one with images and targets; its loss on this rank."""
        position, recipe, parameters = self.position, self.recipe, self.optimizer.parameters
        before = [(array, array.copy()) for array in changed_by_passes(self.network)]
        done = False
        seconds, losses, samples = 0.0, 0.0, 0
        try:
            for number, (part, (images, labels)) in enumerate(parts):
                started = time.perf_counter()
                self._parts.begin(number)
                share = len(part) / batch_size
                taught = self.loss if self.teacher is None else self.teacher.loss(self.loss, images)
                loss, measured = compute_gradients(self.network, images, labels, taught, self.metric, share)
                self._parts.add(parameters, share, (loss * len(part), measured, self._interrupts.waiting))
                losses, samples = losses + loss * len(part), samples + len(part)
                seconds += time.perf_counter() - started
            started = time.perf_counter()
            gathered = self._parts.combine(self.group, parameters, samples / batch_size)
            norm = gradient_norm(parameters)
            with self._interrupts.held():  # entered within the try: a signal before it undoes what the passes did
                if recipe.clip_norm:
                    clip_gradients(parameters, norm, recipe.clip_norm)
                self.optimizer.learning_rate = self._learning_rate(position.batch, position.step, steps_per_epoch)
                self.optimizer.step()  # all or nothing; what follows needs almost no memory
                done = True
                self._parts.commit()
                if self.average is not None:
                    self.average.update()
                position.batch += 1
                position.step += 1
                position.loss += float(gathered[:, 0].sum())
                position.correct += float(gathered[:, 1].sum())
                position.seen += batch_size
                position.gradient_norm = norm
                position.seconds += seconds + time.perf_counter() - started
        except BaseException as error:
            with self._interrupts.held():
                for array, kept in [] if done else before:
                    array[...] = kept
            if isinstance(error, FloatingPointError):
                raise FloatingPointError(f"epoch {position.epoch + 1}, step {position.step}: {error}") from None
            raise
        self._stop_together(gathered[:, 2])
        return losses / samples

    def _learning_rate(self, batch: int, step: int, steps_per_epoch: int) -> float:
        """The learning rate after so many batches of the epoch, and so many steps of the run."""
        if self.schedule is not None:
            rate = self.schedule(self.position.epoch + Fraction(batch, steps_per_epoch), step)
            return as_number("Trainer", "schedule", rate, lambda x: 0 <= x < inf, "a learning rate >= 0")
        warmup = Fraction(self.recipe.warmup_steps, self.position.steps_per_epoch)
        return learning_rate(self.recipe, self.position.epoch + Fraction(batch, steps_per_epoch), step, warmup)

    def _stop_together(self, signals: NDArray[Any]) -> None:
        """Raise Interrupted if a signal reached any rank; the same on each."""
        if self.group.size > 1 and signals.any():
            raise Interrupted(int(signals.max()))

    def _measure(self) -> dict[str, Any]:
        position, network = self.position, self.measured
        first = np.arange(min(len(self.held_out), self.recipe.part_size))
        self.group.require_equal("weights", [array for _, array in self.network.arrays() if array.dtype == np.float32])
        more = beside(self.metric, len(self.data.classes))
        reached, *others = measure_all(
            network,
            self.held_out,
            (self.metric, *more),
            self.recipe.part_size,
            self.recipe.test_views,
            self.group,
            lambda: self.group.size > 1 and self._interrupts.waiting,
            "measure",
        )
        split = run_folder.held_out(self.recipe)
        self._stop_together(self.group.gather(np.array([self._interrupts.waiting])))
        return {
            "epoch": position.epoch + 1,
            "loss": position.loss / position.seen,
            f"train_{self.metric.name}": position.correct / position.seen,
            self.best_by: reached,
            **{f"{split}_{metric.name}": value for metric, value in zip(more, others, strict=True)},
            "best_chosen_on": split,
            "learning_rate": self._learning_rate(position.batch - 1, position.step - 1, position.batch),
            "gradient_norm": position.gradient_norm,
            "seconds": position.seconds,
            "firing_rate": spike_rates(network, self.held_out.batch(first)),
            "v_threshold": {path: neuron.mean_threshold() for path, neuron in network.neurons()},
        }

    def _finish(self, metrics: dict[str, Any]) -> None:
        """Close the epoch.

        The best comes before the checkpoint: once that counts the epoch, no resumed run comes by here again. Where a
        file cannot be written the epoch stays open, and another `fit` closes it. TensorBoard's events, which nobody
        resumes from, come last.
        """
        before = self.position, self.metrics
        reached = self.metric.sign * metrics[self.best_by]
        best = max(reached, self.position.best)
        self.position = Position(
            self.position.epoch + 1,
            step=self.position.step,
            best=best,
            steps_per_epoch=self.position.steps_per_epoch,
        )
        self.metrics = [*self.metrics, metrics]
        if self.group.rank > 0 or self.folder is None:
            return
        try:
            run_folder.write_metrics(self.folder, self.metrics)
            if reached > before[0].best:
                self.save(run_folder.BEST)
            self.save()
        except BaseException:
            self.position, self.metrics = before
            raise
        if self._scalars is None and tensorboard.available():
            self._scalars = tensorboard.Scalars(self.folder)
        if self._scalars is not None:
            self._scalars.write(metrics)


def split(samples: DataSet, recipe: Recipe) -> tuple[Samples, Samples]:
    """The samples to train on, and those to measure with after each epoch."""
    if not recipe.validation:
        return samples.train, samples.test
    count = len(samples.train)
    if recipe.validation >= count:
        raise ValueError(f"recipe: key 'validation': expected less than {count} samples, got {recipe.validation}")
    order = np.random.default_rng([recipe.seed, 3]).permutation(count)
    return Subset(samples.train, order[recipe.validation :]), Subset(samples.train, order[: recipe.validation])
