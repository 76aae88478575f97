"""Pictures of attributions. Attributions are never modified, only displayed.

`overlay` draws one map over its image, `compare` a grid of images and maps, `layer` makes a map a picture that a page
lays over its image, and `save` writes a figure with a record of what it shows. `Style` lists what can be chosen.
"""

from captum_astro.viz.colours import OPACITY as OPACITY
from captum_astro.viz.colours import OUTLIERS as OUTLIERS
from captum_astro.viz.colours import Style as Style
from captum_astro.viz.colours import colours as colours
from captum_astro.viz.images import displayable as displayable
from captum_astro.viz.layer import layer as layer
from captum_astro.viz.maps import pixel_map as pixel_map
from captum_astro.viz.maps import pooled as pooled
from captum_astro.viz.overlay import overlay as overlay
from captum_astro.viz.panels import compare as compare
from captum_astro.viz.text import text_record as text_record
