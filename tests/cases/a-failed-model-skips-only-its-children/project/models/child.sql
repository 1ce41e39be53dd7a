select n from broken
