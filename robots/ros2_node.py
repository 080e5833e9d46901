"""One participant in a DDS domain that is closed to all but its peers, with readers and writers of ROS 2 topics.

Needs cyclonedds.
"""

from __future__ import annotations

import os
from typing import Any

from cyclonedds.core import DDSException, Entity, Policy, Qos
from cyclonedds.domain import Domain, DomainParticipant
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration

from robots.backend import BackendError
from robots.peer_filter import hear_only
from robots.ros2_options import Ros2Options
from robots.ros2_wire import domain_ports, domain_xml, mangled_topic

_BLOCKED = duration(milliseconds=5)  # longest that a write may block; with one sample kept it never has to
# Plain CDR is all that ROS 2 speaks; asked for by name, since Cyclone would offer another beside it.
_CDR = Policy.DataRepresentation(use_cdrv0_representation=True)


class Node:
    """The driver's place in the domain."""

    def __init__(self, options: Ros2Options) -> None:
        """Opens the domain, closes its sockets to strangers, then joins.

        Args:
            options: Domain, interface and peers.

        Raises:
            BackendError: No such interface, a domain that this process has open already, or sockets that cannot be
                closed to strangers.
        """
        try:
            # The configuration is ours alone: a domain that is made explicitly does not read CYCLONEDDS_URI.
            self._domain = Domain(options.domain, domain_xml(options.interface, options.peers))
        except DDSException as error:
            raise BackendError(
                f"cannot open DDS domain {options.domain} on {options.interface}: {error.msg}; does the interface "
                "exist, and does nothing else in this process use the domain?"
            ) from error
        try:
            # Before there is a reader that a stranger could reach.
            hear_only(domain_ports(options.domain), options.peers)
            name = Policy.EntityName(f"gcl_{os.getpid()}")
            self.participant = DomainParticipant(options.domain, Qos(name))
        except (BackendError, DDSException) as error:
            self.close()
            raise BackendError(f"cannot join DDS domain {options.domain}: {error}") from error

    def reader(self, topic: str, message: type, *, reliable: bool, others_only: bool = False) -> DataReader:
        """Subscribes, keeping the newest message only.

        Args:
            topic: ROS 2 name.
            message: Of robots/ros2_messages.py.
            reliable: Whether lost messages are asked for again.
            others_only: Whether this participant's own messages stay unseen.

        Returns:
            The reader.
        """
        asked = Policy.Reliability.Reliable(_BLOCKED) if reliable else Policy.Reliability.BestEffort
        policies: list[Any] = [asked, Policy.History.KeepLast(1), Policy.Durability.Volatile, _CDR]
        if others_only:
            policies.append(Policy.IgnoreLocal.Participant)
        return DataReader(self.participant, Topic(self.participant, mangled_topic(topic), message), Qos(*policies))

    def writer(self, topic: str, message: type) -> DataWriter:
        """Publishes reliably, which both kinds of subscriber hear, and keeps the newest command only.

        Args:
            topic: ROS 2 name.
            message: Of robots/ros2_messages.py.

        Returns:
            The writer.
        """
        qos = Qos(
            Policy.Reliability.Reliable(_BLOCKED), Policy.History.KeepLast(1), Policy.Durability.Volatile, _CDR
        )  # fmt: skip
        return DataWriter(self.participant, Topic(self.participant, mangled_topic(topic), message), qos)

    def close(self) -> None:
        """Leaves the domain; readers and writers end with it. Closing twice is allowed."""
        _delete(self._domain)


def _delete(entity: Entity) -> None:
    # Cyclone's Python deletes an entity with its object, which would leave the moment to the garbage collector.
    entity.__del__()
