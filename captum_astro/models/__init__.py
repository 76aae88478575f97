"""Models that ship with the package, and loading by name. Importing this package registers them with timm."""

from captum_astro.models import astromorphic_registered as astromorphic_registered
from captum_astro.models import bundled as bundled
