"""What protoc would make of prices.proto, by hand and in JSON: grpcio itself is all real."""

from __future__ import annotations

import json
import types
from typing import Any

import grpc


class Message(types.SimpleNamespace):
    def serialize(self) -> bytes:
        return json.dumps(vars(self)).encode()

    @classmethod
    def parse(cls, content: bytes) -> Message:
        return cls(**json.loads(content))


prices_pb2 = types.ModuleType("prices_pb2")
prices_pb2_grpc = types.ModuleType("prices_pb2_grpc")


class PricesServicer:
    def GetPrice(self, request: Any, context: grpc.ServicerContext) -> Any:
        raise NotImplementedError

    def ListPrices(self, request: Any, context: grpc.ServicerContext) -> Any:
        raise NotImplementedError


def add_PricesServicer_to_server(servicer: PricesServicer, server: grpc.Server) -> None:
    how = {"request_deserializer": Message.parse, "response_serializer": Message.serialize}
    handlers = {
        "GetPrice": grpc.unary_unary_rpc_method_handler(servicer.GetPrice, **how),
        "ListPrices": grpc.unary_stream_rpc_method_handler(servicer.ListPrices, **how),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("Prices", handlers)])


class PricesStub:
    def __init__(self, channel: grpc.Channel) -> None:
        how = {"request_serializer": Message.serialize, "response_deserializer": Message.parse}
        self.GetPrice = channel.unary_unary("/Prices/GetPrice", **how)
        self.ListPrices = channel.unary_stream("/Prices/ListPrices", **how)


prices_pb2.Price = Message  # type: ignore[attr-defined]
prices_pb2_grpc.PricesServicer = PricesServicer  # type: ignore[attr-defined]
