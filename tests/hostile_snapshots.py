"""Snapshot files written by hand that no pickler would write: an object is the pickle operations that leave it on the reader's stack."""

import pickle
import struct


def plain(value):
    return pickle.dumps(value, 3)[2:-1]


def named(module, name):
    return f"c{module}\n{name}\n".encode()


def items(*objects):
    return b"(" + b"".join(objects) + b"t"


def call(function, *arguments):
    return function + items(*arguments) + b"R"


def build(target, state):
    return target + state + b"b"


def network(variables, name=b"X\1\0\0\0G", components=b"}", kwargs=b"}"):
    state = {"name": name, "static_kwargs": kwargs, "components": components, "build_func_name": plain("Generator"), "variables": variables}
    return build(NETWORK + b")\x81", b"}(" + b"".join(plain(key) + value for key, value in state.items()) + b"u")


def snapshot(body, protocol=4):
    """A file that contains one object three times."""
    return b"\x80" + bytes([protocol]) + items(body + b"q\x08", b"h\x08", b"h\x08") + b"."


NETWORK = named("dnnlib.tflib.network", "Network")
EASY_DICT = named("dnnlib.util", "EasyDict")
ORDERED_DICT = named("collections", "OrderedDict")
NDARRAY = named("numpy", "ndarray")
DTYPE = named("numpy", "dtype")
RECONSTRUCT = named("numpy.core.multiarray", "_reconstruct")
SCALAR = named("numpy.core.multiarray", "scalar")
ENCODE = named("_codecs", "encode")
BYTES = named("builtins", "bytes")
EMPTY = call(RECONSTRUCT, NDARRAY, plain((0,)), plain(b"b"))
F4, OBJECT = call(DTYPE, plain("f4")), call(DTYPE, plain("O8"))
POINTER = plain(b"AAAAAAAA")


def one_variable(value):
    return network(items(items(plain("x"), value)))


def of_state(number_type, shape, data):
    return one_variable(build(EMPTY, items(plain(1), plain(shape), number_type, plain(False), data)))


def one_array_many_times():
    text = b"X" + struct.pack("<I", 10**6) + b"A" * 10**6
    array = call(NDARRAY, plain((10**6,)), call(DTYPE, plain("i1")), text)
    return network(items(items(plain("x"), array + b"q\x07"), *(items(plain(f"x{index}"), b"h\x07") for index in range(10**4))))


def components_without_end():
    first = network(items(items(plain("x"), call(NDARRAY, plain((1,)), F4, plain(b"AAAA")))))
    for _ in range(40):
        first = b"}(" + plain("a") + first + b"q\x07" + plain("b") + b"h\x07u"
        first = network(b")", components=first)
    return first


HOSTILE = {  # name -> (the object that the file contains three times, part of the error message)
    "object_array": (call(ORDERED_DICT, call(NDARRAY, plain((1,)), OBJECT, POINTER)), "type 'O8'"),
    "object_state": (of_state(OBJECT, (1,), POINTER), "type 'O8'"),
    "object_scalar": (one_variable(call(SCALAR, OBJECT, POINTER)), "type 'O8'"),
    "record_type": (of_state(call(DTYPE, plain("O,O")), (1,), POINTER), "type 'O,O'"),
    "void_type": (of_state(call(DTYPE, plain("V8")), (1,), POINTER), "type 'V8'"),
    "type_rebuilt": (of_state(build(F4, plain((3, "|", None, ("a",), {"a": 0}, 8, 8, 63))), (1,), POINTER), "compound type"),
    "type_of_an_array": (of_state(call(NDARRAY, plain(()), plain("O")), (1,), POINTER), "number type"),
    "objects_as_data": (of_state(F4, (1,), b"]" + plain("a") + b"a"), "bytes-like"),
    "short_data": (of_state(F4, (1000,), plain(b"abcd")), "too small"),
    "long_data": (of_state(F4, (1,), POINTER), "4 bytes has 8"),
    "overflowing_shape": (of_state(F4, (2**62, 2**62), POINTER), "too big"),
    "no_data": (one_variable(call(NDARRAY, plain((10**10,)), F4)), "too small"),
    "no_type": (one_variable(call(NDARRAY, plain((10**10,)))), "number type"),
    "no_state": (one_variable(call(RECONSTRUCT, NDARRAY, plain((10**10,)), plain(b"d"))), "number type"),
    "no_array": (one_variable(plain("text")), "variable x is not a numeric array"),
    "many_bytes": (call(BYTES, plain(10**10)), "argument"),
    "far_memo": (b"Nr\xff\xff\xff\x7f", "numbers its objects up to 2147483647"),
    "long_bytes": (b"\x8e" + struct.pack("<Q", 2**38) + b"A", "expected 274877906944 bytes"),
    "copied_dicts": (plain([[i, i] for i in range(10**5)]) + b"q\x07" + items(*[call(ORDERED_DICT, b"h\x07")] * 1000), "holds tuple"),
    "one_array_many_times": (one_array_many_times(), "more bytes than the file"),
    "components_without_end": (components_without_end(), "has components"),
    "changed_class": (build(EASY_DICT, items(b"N", plain({"__init__": 1}))), "__setstate__"),
    "changed_network_class": (build(NETWORK, items(b"N", plain({"state": 1}))), "__setstate__"),
    "changed_function": (build(ENCODE, items(b"N", plain({"__defaults__": ("latin1",)}))), "sets attributes of a function"),
    "changed_dict": (build(EASY_DICT + b")\x81", items(b"N", plain({"keys": 1}))), "sets attributes of a dict"),
    "planted_setstate": (build(EASY_DICT + b")\x81(" + plain("__setstate__") + BYTES + b"u", plain(10**10)), "sets attributes of a dict"),
    "other_codec": (call(ENCODE, plain("AAAA"), plain("utf-16")), "codec 'utf-16' is not allowed"),
    "no_states": (NETWORK + b")\x81", "network without build_func_name"),
    "no_component": (network(b")", components=plain({"mapping": 1})), "a component is int"),
    "extension": (b"\x82\x01", "unregistered extension code 1"),
    "persistent": (plain("x") + b"Q", "persistent"),
    "lines": (plain("os\nx") + plain("\x1b[2J") + b"\x93", r"os\nx.\x1b[2J"),
    "lines_in_names": (network(b")", name=plain("a\nb")), "is not a valid name"),
}
