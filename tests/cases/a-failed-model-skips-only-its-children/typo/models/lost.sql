select n from  analytics.othr
