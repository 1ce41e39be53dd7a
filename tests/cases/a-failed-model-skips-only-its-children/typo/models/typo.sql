select n,
       nn from other
