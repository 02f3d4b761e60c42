"""What the pages read and cache, by subject: what was found, tables, and pictures.

A module may use those before it: `found`, `caching`, `results`, `tables`, `pictures`.
"""

from cached.found import Intervened as Intervened
from cached.found import Monitored as Monitored
from cached.found import Run as Run
from cached.found import entries as entries
from cached.found import folder as folder
from cached.found import interventions as interventions
from cached.found import monitored as monitored
from cached.found import runs as runs
from cached.pictures import GRAD_CAM as GRAD_CAM
from cached.pictures import NO_OVERLAY as NO_OVERLAY
from cached.pictures import Shown as Shown
from cached.pictures import class_maps_png as class_maps_png
from cached.pictures import comparison as comparison
from cached.pictures import heat as heat
from cached.pictures import image as image
from cached.pictures import overlays as overlays
from cached.pictures import plot as plot
from cached.pictures import seeds as seeds
from cached.pictures import training_plot as training_plot
from cached.pictures import usage_plot as usage_plot
from cached.tables import agreement_summary as agreement_summary
from cached.tables import calibration as calibration
from cached.tables import calibration_summary as calibration_summary
from cached.tables import channel_effects as channel_effects
from cached.tables import class_mean_grad_cam as class_mean_grad_cam
from cached.tables import class_mean_maps as class_mean_maps
from cached.tables import class_metrics as class_metrics
from cached.tables import class_profiles as class_profiles
from cached.tables import compare_class_order as compare_class_order
from cached.tables import compare_grad_cam as compare_grad_cam
from cached.tables import compare_profiles as compare_profiles
from cached.tables import confidence as confidence
from cached.tables import confusion_matrix as confusion_matrix
from cached.tables import gate_profiles as gate_profiles
from cached.tables import gate_state as gate_state
from cached.tables import gate_usage as gate_usage
from cached.tables import misclassified as misclassified
