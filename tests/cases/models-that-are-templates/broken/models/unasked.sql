select kind
from {{ x }}
