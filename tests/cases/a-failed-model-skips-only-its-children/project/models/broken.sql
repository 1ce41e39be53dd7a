select n, cast('x' || n as bigint) as broken from numbers
