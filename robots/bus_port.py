"""BusPort: a serial port as the servo makers' SDKs want one, but waiting in the kernel and by a clock nobody sets.

The SDKs' own port polls without a pause until the wall clock says that time is up: a core is lost to each answer, and
a clock that is set meanwhile ends the waiting early or late.
"""

from __future__ import annotations

import select
import termios
import time

from robots.backend import BackendError

_QUIET_SECONDS = 0.002  # without a byte for this long nobody is answering any more


class BusPort:
    """One serial port, held by this process alone. Its method names are what the SDKs call."""

    def __init__(self, path: str, baudrate: int, answer_seconds: float) -> None:
        """Opens the port; nothing is sent.

        Args:
            path: "/dev/ttyACM0".
            baudrate: [bit/s] of the bus.
            answer_seconds: [s] how long an answer may take beyond the time of its bytes on the wire.

        Raises:
            BackendError: pyserial is missing, or the port cannot be opened or is in use.
        """
        try:
            import serial
        except ModuleNotFoundError as error:
            raise BackendError(f"bus servos need {error.name}: pip install 'gcl-toolkit[serial]'") from error
        try:
            self._serial = serial.Serial(
                path, baudrate, timeout=0, write_timeout=max(answer_seconds, 0.1), exclusive=True
            )
        except (OSError, ValueError) as error:  # serial.SerialException is an OSError
            raise BackendError(f"cannot use the serial port {path} at {baudrate} baud: {error}") from error
        self.path = path
        self.is_using = False  # the SDKs set it while an answer is awaited
        self._byte_seconds = 10.0 / baudrate
        self._answer_seconds = answer_seconds
        self._deadline = 0.0  # [s] monotonic

    def close(self) -> None:
        """Gives the port back."""
        self._serial.close()

    def drain(self) -> None:
        """Reads on until the wire is quiet or the time for the answer is up."""
        while (left := self._deadline - time.monotonic()) > 0.0:
            if not select.select([self._serial.fileno()], [], [], min(left, _QUIET_SECONDS))[0]:
                return
            self._serial.read(4096)

    def clearPort(self) -> None:  # noqa: N802
        """Forgets what came in and was not read: late answers to earlier questions."""
        try:
            self._serial.reset_input_buffer()
        except termios.error as error:  # what pyserial lets through of a port that is gone
            raise OSError(*error.args) from error

    def writePort(self, packet: list[int]) -> int:  # noqa: N802
        """Sends bytes.

        Args:
            packet: The bytes.

        Returns:
            How many went out.
        """
        return self._serial.write(bytes(packet)) or 0

    def readPort(self, length: int) -> bytes:  # noqa: N802
        """Waits for bytes until some come or the time is up.

        Args:
            length: How many at most; the SDKs also ask for none or fewer.

        Returns:
            What came, empty if nothing did in time.
        """
        if length <= 0:
            return b""
        left = self._deadline - time.monotonic()
        if left > 0.0:
            select.select([self._serial.fileno()], [], [], left)
        return self._serial.read(length)

    def setPacketTimeout(self, packet_length: int) -> None:  # noqa: N802
        """Starts to wait for that many bytes.

        Args:
            packet_length: Bytes of the whole answer.
        """
        self._deadline = time.monotonic() + packet_length * self._byte_seconds + self._answer_seconds

    def isPacketTimeout(self) -> bool:  # noqa: N802
        """Whether the time for the answer is up."""
        return time.monotonic() >= self._deadline
