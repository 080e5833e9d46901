"""What every Backend must do. A test class inherits this and says how to make one."""

import numpy as np
import pytest

from robots import Backend, BackendError, RobotSpec, SensorReading


class BackendContract:
    """Inherit, set `spec`, define `make`."""

    spec: RobotSpec

    def make(self, seed: int = 0) -> Backend:
        """A fresh, open, not yet reset backend for `spec`."""
        raise NotImplementedError

    def command(self, share: float = 0.3) -> np.ndarray:
        return np.array([term.offset + share * abs(term.scale) for term in self.spec.action])

    def check(self, reading: SensorReading) -> None:
        assert reading.values.shape == (len(self.spec.channels),)
        assert reading.values.dtype == np.float64
        assert np.isfinite(reading.values).all()
        assert isinstance(reading.timestamp_ns, int)

    def test_readings_are_whole_and_in_order(self) -> None:
        """Readings have the robot's shape, count up from 0 and never go back in time."""
        with self.make() as backend:
            readings = [backend.reset(), *(backend.step(self.command()) for _ in range(5))]
        for reading in readings:
            self.check(reading)
        assert [reading.sequence for reading in readings] == list(range(6))
        times = [reading.timestamp_ns for reading in readings]
        assert times == sorted(times)

    def test_carries_its_spec(self) -> None:
        """A backend says which robot it is."""
        with self.make() as backend:
            assert backend.spec.sha256 == self.spec.sha256

    def test_commands_reach_the_robot(self) -> None:
        """Opposite commands from the same start give different readings."""
        after = []
        for share in (-0.5, 0.5):
            with self.make() as backend:
                backend.reset()
                after.append([backend.step(self.command(share)) for _ in range(5)][-1].values)
        assert not np.allclose(after[0], after[1])

    def test_same_seed_same_episodes(self) -> None:
        """Two backends of one seed give equal episodes, one after the other; another seed gives another."""

        def episodes(seed: int) -> np.ndarray:
            with self.make(seed) as backend:
                return np.array([
                    [backend.reset().values, *(backend.step(self.command()).values for _ in range(3))] for _ in range(2)
                ])  # fmt: skip

        first, again, other = episodes(1), episodes(1), episodes(2)
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first[0], first[1])
        assert not np.array_equal(first, other)

    def test_reset_counts_from_zero_again(self) -> None:
        """A second reset begins a new count."""
        with self.make() as backend:
            backend.reset()
            backend.step(self.command())
            assert backend.reset().sequence == 0
            assert backend.step(self.command()).sequence == 1

    @pytest.mark.parametrize("shape", [(), (0,), (1, 1), (99,)])
    def test_wrong_shape_is_refused(self, shape: tuple[int, ...]) -> None:
        """A command of a wrong shape raises, and nothing is sent: the next reading is the very next one."""
        with self.make() as backend:
            backend.reset()
            with pytest.raises(BackendError):
                backend.step(np.zeros(shape))
            assert backend.step(self.command()).sequence == 1

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_not_finite_is_refused(self, bad: float) -> None:
        """A NaN or infinity raises, and nothing is sent: the robot does as if it had never been asked."""
        with self.make() as backend, self.make() as untouched:
            backend.reset()
            untouched.reset()
            command = self.command()
            command[-1] = bad
            with pytest.raises(BackendError, match="finite"):
                backend.step(command)
            after = backend.step(self.command())
            assert after.sequence == 1
            np.testing.assert_array_equal(after.values, untouched.step(self.command()).values)

    def test_command_buffer_is_not_kept(self) -> None:
        """The caller may overwrite its command buffer at once; earlier readings do not change either."""
        with self.make() as backend, self.make() as untouched:
            first = backend.reset()
            kept = first.values.copy()
            untouched.reset()
            buffer = self.command()
            for _ in range(3):
                buffer[:] = self.command()
                mine = backend.step(buffer)
                buffer[:] = 1e9
                np.testing.assert_array_equal(mine.values, untouched.step(self.command()).values)
            np.testing.assert_array_equal(first.values, kept)

    def test_a_step_in_two_halves(self) -> None:
        """Sending and receiving are a step, its buffer free at once; each answer is told of once."""
        with self.make() as backend, self.make() as untouched:
            backend.reset()
            untouched.reset()
            buffer = self.command()
            for k in range(1, 4):
                buffer[:] = self.command()
                backend.send(buffer)
                buffer[:] = 1e9
                mine = backend.receive()
                self.check(mine)
                assert mine.sequence == k
                np.testing.assert_array_equal(mine.values, untouched.step(self.command()).values)
            with pytest.raises(BackendError, match="before send"):
                backend.receive()

    def test_half_a_step_that_is_refused(self) -> None:
        """What `step` refuses `send` refuses, and then there is nothing to receive."""
        with self.make() as backend:
            with pytest.raises(BackendError, match="reset"):
                backend.send(self.command())
            backend.reset()
            for bad in (np.zeros(99), np.full(len(self.spec.action), np.nan)):
                with pytest.raises(BackendError):
                    backend.send(bad)
                with pytest.raises(BackendError, match="before send"):
                    backend.receive()
            assert backend.step(self.command()).sequence == 1

    def test_step_before_reset_is_refused(self) -> None:
        """A robot that was not reset takes no command."""
        with self.make() as backend, pytest.raises(BackendError, match="reset"):
            backend.step(self.command())

    def test_measuring_moves_nothing(self) -> None:
        """A robot can be looked at, before a reset too; each look is a fresh reading, and it does not go on by it."""
        with self.make() as backend, self.make() as untouched:
            before = [backend.measure() for _ in range(2)]
            for look in before:
                self.check(look)
            assert before[1].sequence > before[0].sequence
            backend.reset()
            untouched.reset()
            looks = [backend.measure() for _ in range(2)]
            for look in looks:
                self.check(look)
            assert [look.sequence for look in looks] == [1, 2]
            np.testing.assert_array_equal(looks[0].values, looks[1].values)
            np.testing.assert_array_equal(backend.step(self.command()).values, untouched.step(self.command()).values)

    def test_closing(self) -> None:
        """Closing twice is allowed; a closed robot does nothing more."""
        backend = self.make()
        backend.reset()
        backend.close()
        backend.close()
        with pytest.raises(BackendError, match="closed"):
            backend.step(self.command())
        with pytest.raises(BackendError, match="closed"):
            backend.reset()
        with pytest.raises(BackendError, match="closed"):
            backend.measure()
        with pytest.raises(BackendError, match="closed"):
            backend.send(self.command())
