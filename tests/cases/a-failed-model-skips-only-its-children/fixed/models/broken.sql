select n, n as broken from numbers
